"""What a file is, for those who cannot read the store's records of sources: containers, users of a shared store.

A client says which file, by its key or by its content, and is told of models that it may read, by a ref that it may
read; whatever else there is, the answer is that of a file that nobody knows, and takes the time that one takes: all is
looked up in one table, of what this asker may read. What a client says is never remembered, so no lie reaches another:
contents and keys are those that the store's own processes recorded of what they read themselves. A key that is asked
for tells of a file which the asker could read, by its owner, group and mode (the ctime among its numbers says that they
are still those), and only where no user could have made the numbers up (fingerprint.is_lasting).
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import Any

from trims.disk import snapshot
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import FileKey, is_lasting
from trims.disk.known import PART, Known
from trims.disk.source_index import Content, SourceIndex, unpacked
from trims.disk.store import Store
from trims.errors import TrimsError, UsageError
from trims.manager.names import Named, Names, is_digest
from trims.permission import Access, Asker, may_read
from trims.wire.messages import Recognise

Item = dict[str, object]
_VIEWS = 64  # askers whose view is kept
_MOST = 8  # models that an answer tells of


class _View:
    """What one asker may know: of each content the models, with their refs. `state`: of which store it is a view."""

    def __init__(self, state: tuple[object, ...] | None, contents: dict[Content, dict[str, list[str]]]) -> None:
        self.state, self.contents = state, contents
        self.sizes = {size for size, _ in contents}


class Recognising:
    """The store's files, for `asker`s: None is one who may know everything. In threads."""

    def __init__(self, store: Store, names: Names) -> None:
        self._paths, self._names = store.paths, names
        self._catalog = Catalog(store.paths)
        self._index = SourceIndex(store.paths)
        self._views: OrderedDict[Asker | None, _View] = OrderedDict()
        self._lock = threading.Lock()

    def items(self, m: Recognise, asker: Asker | None) -> list[Item]:
        """The answer. Raises UsageError for what is no question."""
        key = _checked(m)
        view = self._view(asker)
        if m.size not in view.sizes:
            return []
        file = m.file or (self._by_key(key, asker) if key is not None else "")
        if not file:
            return [{"size": m.size}]
        found = self._readable((m.size, file), view.contents.get((m.size, file), {}), asker)
        return found if found or m.file else [{"size": m.size}]

    def _by_key(self, key: FileKey, asker: Asker | None) -> str:
        file, access = self._index.keys.get(key, ("", None))
        if asker is None:
            return file
        return file if is_lasting(key) and may_read(access, asker) else ""

    def _readable(self, content: Content, models: dict[str, list[str]], asker: Asker | None) -> list[Item]:
        """What of a content is so this moment; a model goes by its name at import, where the asker may know that."""
        found: list[tuple[bool, bool, Item]] = []
        packed = self._index.contents.get(content, {})
        for model, refs in models.items():
            for known in unpacked(packed[model]) if model in packed else ():
                named = self._named(known.ref if known.ref in refs else refs[0], model, asker)
                if named is not None:
                    own = asker is None or (named.access is not None and named.access.owner == asker.uid)
                    found.append((known.kind == PART, not own, _item(known, named.ref)))
        return [item for *_, item in sorted(found, key=lambda one: one[:2])[:_MOST]]

    def _named(self, ref: str, model: str, asker: Asker | None) -> Named | None:
        try:
            named = self._names.slow(ref, asker)
        except TrimsError:
            return None
        return named if named.digest == model else None

    def _view(self, asker: Asker | None) -> _View:
        """What this asker may know as the store is now."""
        self._index.refresh()
        refs = snapshot.state(self._paths)
        state = None if refs is None else (self._index.generation, refs)
        with self._lock:
            view = self._views.get(asker)
            if view is not None and view.state is not None and view.state == state:
                self._views.move_to_end(asker)
                return view
        view = _View(state, self._contents(asker))
        with self._lock:
            self._views[asker] = view
            while len(self._views) > _VIEWS:
                self._views.popitem(last=False)
        return view

    def _contents(self, asker: Asker | None) -> dict[Content, dict[str, list[str]]]:
        refs: dict[str, list[str]] = {}
        for digest, ref, text in self._catalog.rows():
            if asker is None or may_read(_access(text), asker):
                refs.setdefault(digest, []).append(ref)
        found = {}
        for content, models in self._index.contents.items():
            mine = {model: refs[model] for model in models if model in refs}
            if mine:
                found[content] = mine
        return found


def _checked(m: Recognise) -> FileKey | None:
    """The key, if one is said. Raises UsageError."""
    if m.file and not is_digest(m.file):
        raise UsageError(f"bad digest {m.file[:80]!r}", "it takes 64 hexadecimal digits")
    if m.key and (len(m.key) != len(FileKey._fields) or m.key[2] != m.size or not all(0 <= n < 1 << 64 for n in m.key)):
        raise UsageError("bad key of a file", "it takes device, inode, size, mtime and ctime")
    return FileKey(*m.key) if m.key else None


def _access(text: str) -> Access | None:
    fields: dict[str, Any] = json.loads(text + "}")
    return Access(fields["owner"], fields["group"], fields["mode"]) if "owner" in fields else None


def _item(known: Known, ref: str) -> Item:
    return {
        "file": known.file, "size": known.size, "kind": known.kind, "digest": known.model, "ref": ref,
        "tensors": known.tensors, "companions": [list(pair) for pair in known.companions], "extra": known.extra,
    }  # fmt: skip
