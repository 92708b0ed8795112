"""`trims show`: what one model is, where it came from, where it is resident; from the store, or as a manager tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trims import errors
from trims.errors import NoStore, NotPermitted
from trims_cli import glance, listing, output
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.times import rfc3339

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.sidecar import Sidecar
    from trims.disk.store import Store
    from trims.shmindex.reader import Residency

TENSORS = (
    Column("TENSOR", "name"), Column("DTYPE", "dtype"), Column("SHAPE", "shape"), Column("BYTES", "nbytes", "size"),
    Column("OFFSET", "offset", "int", usual=False), Column("DIGEST", "digest", "id"),
)  # fmt: skip
FILES = (Column("FILE", "name"), Column("BYTES", "nbytes", "size"), Column("DIGEST", "digest", "id"))


def show(settings: Settings, model: str, what: str, limit: int | None) -> int:
    """Print it. what: tensors, files, path, history (the last `limit` lines), or "" for the model itself."""
    from trims.disk.catalog import Catalog
    from trims.disk.sidecar import read_sidecar
    from trims.disk.store import open_store

    try:
        store = open_store(settings.config.store)
    except (NoStore, NotPermitted) as error:
        return _told(settings, model, what, limit, error)
    entry = Catalog(store.paths).resolve(model)
    if what == "history":
        from trims_cli import history as past

        return past.show(settings, entry.digest, entry.ref, limit or past.LIMIT)
    if what == "path":
        output.write(store.paths.container(entry.digest) + "\n")
        return 0
    sidecar = read_sidecar(store.paths.sidecar(entry.digest))
    if what == "tensors":
        at = sidecar.manifest.layout.tensors
        _print_tensors(settings, [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "nbytes": t.nbytes, "offset": at[t.name],
             "digest": t.digest}
            for t in sidecar.manifest.tensors
        ])  # fmt: skip
    elif what == "files":
        blobs = [{"name": f.name, "nbytes": f.nbytes, "digest": f.digest} for f in sidecar.manifest.files]
        output.emit(settings, "files", blobs, FILES)
    else:
        _print_model(settings, _describe(settings, store, entry, sidecar))
    return 0


def _told(settings: Settings, model: str, what: str, limit: int | None, error: NoStore | NotPermitted) -> int:
    """The same of a store that only its manager can read, which `error` says."""
    from trims_cli import sharing

    if what == "path":
        raise sharing.unreadable("the path of its container", error)
    item, tensors = sharing.describe(settings, model, error, what == "tensors")
    here, blobs = item.pop("_here"), item.pop("_files")
    if what == "history":
        from trims_cli import history as past

        return past.show(settings, item["id"], item["name"], limit or past.LIMIT, any_store=True)
    if what == "tensors":
        _print_tensors(settings, tensors)
    elif what == "files":
        output.emit(settings, "files", blobs, FILES)
    else:
        _print_model(settings, {**item, "sources": [], "resident": _resident(here)})
    return 0


def _print_tensors(settings: Settings, items: list[Item]) -> None:
    output.emit(settings, "tensors", [_shaped(settings, item) for item in items], TENSORS)


def _shaped(settings: Settings, item: Item) -> Item:
    """In tables a shape is one word, 64x3x7x7; a scalar's is `scalar`."""
    if settings.form in ("json", "jsonl"):
        return item
    return {**item, "shape": "x".join(map(str, item["shape"])) or "scalar"}


def _describe(settings: Settings, store: Store, entry: Entry, sidecar: Sidecar) -> Item:
    manifest = sidecar.manifest
    snapshot = glance.look(settings)
    here = (
        glance.by_digest(snapshot).get(entry.digest, []) if snapshot and glance.serves(snapshot, store.root) else None
    )
    return {
        "name": entry.ref,
        "id": entry.digest,
        "format": entry.origin_format,
        "tensors": entry.tensors,
        "nbytes": entry.nbytes,
        "stored": entry.stored,
        "codec": entry.codec,
        "created": rfc3339(entry.created),
        "labels": entry.labels,
        "graph_nbytes": manifest.graph.nbytes if manifest.graph else None,
        "files": [f.name for f in manifest.files],
        **output.with_path({}, store.paths.container(entry.digest)),
        "origin": entry.origin,
        "sources": _sources(store, entry.digest),
        "variants": _variants(store, entry.digest),
        "used": _last_use(store, entry.digest, here or []),
        "resident": here if here is None else _resident(here),
        **(entry.access._asdict() if entry.access else {}),
    }


def _resident(here: list[Residency]) -> list[Item]:
    return [
        {"place": r.place, "variant": r.variant, "state": r.state, "nbytes": r.nbytes, "leases": r.leases,
         "pins": r.pins, "hits": r.hits, "used": rfc3339(r.last_use), "load_seconds": r.load_seconds}
        for r in here
    ]  # fmt: skip


def _last_use(store: Store, digest: str, here: list[Residency]) -> str | None:
    """By the index, or by what managers have noted in the user's state directory."""
    import os

    from trims.disk import uses

    known = [uses.read(uses.path(store.id, os.environ)).get(digest, 0.0), *(r.last_use for r in here)]
    return rfc3339(max(known)) if max(known) else None


def _sources(store: Store, digest: str) -> list[Item]:
    """The files that are told to be this model, wherever they lie."""
    from trims.disk.source_care import of_model

    known = of_model(store.paths, digest)
    return [{"kind": one.kind, "nbytes": one.size, "digest": one.file} for one in known]


def _variants(store: Store, digest: str) -> list[Item]:
    import os

    directory = f"{store.paths.variants}/{digest}"
    try:
        names = sorted(name[:-3] for name in os.listdir(directory) if name.endswith(".h5"))
    except FileNotFoundError:
        return []
    return [{"key": key, "stored": os.stat(store.paths.variant(digest, key)).st_size} for key in names]


def _print_model(settings: Settings, item: Item) -> None:
    if settings.form != "table":
        output.emit(settings, "show", [item], listing.COLUMNS)
        return

    def size(nbytes: int | None) -> str:
        return output.cell("size", nbytes, plain_bytes=settings.bytes)

    shown = ("name", "id", "format", "tensors", "codec", "created", "used")
    lines = {key: output.cell("text", item[key]) for key in shown}
    lines |= {
        "size": f"{size(item['nbytes'])} in memory, {size(item['stored'])} stored",
        "graph": size(item["graph_nbytes"]),
        "files": " ".join(map(output.clean, item["files"])) or "-",
        "labels": output.cell("text", item["labels"]),
        "origin": str(item["origin"].get("path") or "-"),
        "path": item["path"] or "-",
        "variants": ", ".join(f"{v['key']} ({size(v['stored'])})" for v in item["variants"]) or "-",
    }
    if "mode" in item:
        lines["access"] = f"uid {item['owner']}, group {item['group']}, mode {item['mode']:o}"
    lines["resident"] = _where(settings, item["resident"])
    output.write("".join(f"{key + ':':<10} {errors.one_line(text)}\n" for key, text in lines.items()))


def _where(settings: Settings, resident: list[Item] | None) -> str:
    if not resident:
        return "no manager of this store runs" if resident is None else "no"
    return ", ".join(
        f"{output.cell('place', r['place'], settings.verbose)} {r['variant']} {r['state']} "
        f"({r['leases']} leases, {r['pins']} pins)"
        for r in resident
    )
