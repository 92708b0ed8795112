"""What those are told who cannot read the store and the index: the same rows, as far as they may know of them.

All of it reads files and runs in threads. An answer is a page: at most MOST rows, and about a megabyte, whichever comes
first, so that a client has room for it; a page begins behind what the client has seen.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from typing import Any

from trims.disk import snapshot
from trims.disk.catalog import Catalog, fields_of
from trims.disk.sidecar import read_sidecar
from trims.disk.store import Store
from trims.errors import ManagerUnreachable
from trims.manager.names import Named, Names
from trims.permission import Access, Asker, may_read
from trims.shmindex import reader
from trims.shmindex.reader import Lease, Residency, Snapshot

Item = dict[str, object]
MOST = 1000
_ENOUGH = 1 << 20
"""Characters after which a page ends."""
_HELD = 10_000
_HEADER = ("pid", "uid", "started", "since", "identity", "version", "socket", "store", "generation")
_ROW = (
    "slot", "serial", "ref", "digest", "variant", "place", "state", "nbytes", "done", "leases", "pins", "hits",
    "load_seconds", "since", "last_use", "expires",
)  # fmt: skip
_LEASE = ("lease", "pid", "uid", "started", "since", "job", "container")


class Listing:
    """The store and the index, for `asker`s: None is one who may know everything."""

    def __init__(self, store: Store, index: str, names: Names) -> None:
        self._store, self._index, self._names = store, index, names
        self._catalog = Catalog(store.paths)

    def models(self, after: str, limit: int, asker: Asker | None) -> list[Item]:
        """A page of the models behind the ref `after`."""
        rows, size = self._catalog.rows(), 0
        found: list[Item] = []
        more = False
        for _, _, text in rows[bisect_right(rows, after, key=lambda row: row[1]) :]:
            item = _model(text)
            if asker is not None and not may_read(_access(item), asker):
                continue
            size += len(text)
            more = len(found) >= min(max(limit, 1), MOST) or bool(found and size > _ENOUGH)
            if more:
                break
            found.append(item)
        return [{"more": more}, *found]

    def model(self, named: Named, after: int, limit: int) -> list[Item]:
        """One model, and of its tensors the page behind number `after`."""
        entry = self._catalog.get(named.ref)
        manifest = read_sidecar(self._store.paths.sidecar(entry.digest)).manifest
        fields = fields_of(entry)
        item = {**_model(snapshot.render(fields)), "origin": entry.origin}
        item["graph_nbytes"] = manifest.graph.nbytes if manifest.graph else None
        item["files"] = [{"name": f.name, "nbytes": f.nbytes, "digest": f.digest} for f in manifest.files[:MOST]]
        item["variants"] = self._variants(entry.digest)
        at = manifest.layout.tensors
        page = manifest.tensors[max(after, 0) :][: min(max(limit, 0), MOST)]
        return [item, *(
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "nbytes": t.nbytes, "offset": at[t.name],
             "digest": t.digest}
            for t in page
        )]  # fmt: skip

    def _variants(self, digest: str) -> list[Item]:
        try:
            names = sorted(os.listdir(self._store.paths.variants_of(digest)))
        except OSError:
            return []
        found: list[Item] = []
        for name in names:
            if name.endswith(".h5"):
                try:
                    stored = os.stat(self._store.paths.variant(digest, name[:-3])).st_size
                except OSError:
                    continue  # it is being collected
                found.append({"key": name[:-3], "stored": stored})
        return found

    def resident(self, after: int, limit: int, asker: Asker | None) -> list[Item]:
        """The index: its header, and the page of its rows from slot `after` on."""
        index = reader.read(self._index)
        if index is None:
            raise ManagerUnreachable("the manager's index is gone", f"there is no {self._index}", "`trims restart` it")
        rows = [row for row in index.residencies if row.slot >= after]
        page = rows[: min(max(limit, 0), MOST)]
        known = {} if asker is None else self._known({row.digest for row in page}, asker)
        held: dict[int, list[Lease]] = {}
        for lease in index.leases:
            if asker is None or lease.uid == asker.uid:
                held.setdefault(lease.residency_slot, []).append(lease)
        found: list[Item] = []
        size, next_slot = 0, None
        for row in page:
            item = _row(row, held.get(row.slot, []))
            if asker is not None:
                item |= {"ref": known[row.digest]} if row.digest in known else {"ref": "", "digest": ""}
            size += 500 + 150 * min(len(held.get(row.slot, [])), _HELD)
            if found and size > _ENOUGH:
                next_slot = row.slot
                break
            found.append(item)
        else:
            next_slot = rows[len(page)].slot if len(rows) > len(page) else None
        return [_header(index, next_slot, asker is None), *found]

    def _known(self, digests: set[str], asker: Asker) -> dict[str, str]:
        """A ref that the asker may read, of each of these digests that has one."""
        found = {digest: named.ref for digest in digests if (named := self._names.readable(digest, asker))}
        if len(found) < len(digests):  # of an earlier life, or somebody else's
            for digest, ref, text in self._catalog.rows():
                if digest in digests and digest not in found and may_read(_access(_model(text)), asker):
                    found[digest] = ref
        return found


def _model(text: str) -> Item:
    """A row of the snapshot, in the protocol's words."""
    fields: dict[str, Any] = json.loads(text + "}")
    item: Item = {"ref": fields.pop("name"), "digest": fields.pop("id"), **fields}
    return {**dict.fromkeys(("owner", "group", "mode")), **item}


def _access(item: Item) -> Access | None:
    owner, group, mode = item["owner"], item["group"], item["mode"]
    if not (isinstance(owner, int) and isinstance(group, int) and isinstance(mode, int)):
        return None
    return Access(owner, group, mode)


def _header(index: Snapshot, next_slot: int | None, all: bool) -> Item:
    settings = {name: text for name, text in index.settings.items() if all or name != "last_eviction"}
    places = [{name: getattr(use, name) for name in use.__slots__} for use in index.places]
    fields: Item = {name: getattr(index, name) for name in _HEADER}
    return {**fields, "places": places, "counters": index.counters, "settings": settings, "next": next_slot}


def _row(row: Residency, held: list[Lease]) -> Item:
    """`expires` may be infinite, which JSON has no word for: null."""
    item: Item = {name: getattr(row, name) for name in _ROW}
    if row.expires == float("inf"):
        item["expires"] = None
    leases = [{name: getattr(lease, name) for name in _LEASE} for lease in held[:_HELD]]
    return {**item, "held": leases}
