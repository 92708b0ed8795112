"""The commands about what the store holds: init, ls, show, df, and (cmd_care) verify, rm, gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trims import errors
from trims.errors import UsageError
from trims_cli import glance, listing, output
from trims_cli.cmd_care import gc_, rm_, verify_
from trims_cli.options import Filter, Limit, Models, OneModel, Sort
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.times import rfc3339

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.sidecar import Sidecar
    from trims.disk.store import Store
    from trims.shmindex.reader import Residency

__all__ = ["df_", "gc_", "init_", "ls_", "rm_", "show_", "verify_"]

TENSORS = (
    Column("TENSOR", "name"), Column("DTYPE", "dtype"), Column("SHAPE", "shape"), Column("BYTES", "nbytes", "size"),
    Column("OFFSET", "offset", "int", usual=False), Column("DIGEST", "digest", "id"),
)  # fmt: skip
FILES = (Column("FILE", "name"), Column("BYTES", "nbytes", "size"), Column("DIGEST", "digest", "id"))
DF = (
    Column("WHAT", "what"), Column("COUNT", "count", "int"), Column("SIZE", "nbytes", "size"),
    Column("RECLAIMABLE", "reclaimable", "size"),
)  # fmt: skip


def open_store(settings: Settings) -> Store:
    """The store in effect. Raises NoStore and its like."""
    from trims.disk.store import open_store as open_root

    return open_root(settings.config.store)


def init_(
    settings: Settings,
    directory: Annotated[str | None, typer.Argument(metavar="[DIR]", help="Where; the store in effect.")] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", metavar="CODEC", help="Of new containers: none, zstd.")
    ] = None,
    if_missing: Annotated[bool, typer.Option("--if-missing", help="An existing store is fine.")] = False,
    shared: Annotated[
        str | None, typer.Option("--shared", metavar="GROUP", help="All of this group may change it.")
    ] = None,
) -> int:
    """Make a store."""
    import os

    from trims.disk.store import create_store

    root = os.path.abspath(directory) if directory is not None else settings.config.store
    existed = os.path.exists(f"{root}/store.json")
    store = create_store(root, codec or settings.config["store.codec"], if_missing, _group(shared))
    item = {
        "store": store.root, "id": store.id, "codec": store.codec, "made": not existed, "filesystem": file_system(root),
    }  # fmt: skip
    if settings.form == "table":
        verb = "made" if item["made"] else "found"
        output.tell(settings, lambda: f"{verb} store {store.root} on {item['filesystem']}, codec {store.codec}")
    else:
        output.emit(settings, "init", [item], (Column("STORE", "store"), Column("ID", "id")), "store")
    return 0


def _group(name: str | None) -> int | None:
    """The number of a group. Raises UsageError."""
    import grp

    if name is None or name.isdecimal():
        return None if name is None else int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"no group {name!r}") from None


def file_system(path: str) -> str:
    """The type of the file system that `path` is on, by the mount table."""
    import os

    path, best = os.path.realpath(path), ("", "unknown")
    try:
        with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                mount, kind = line.split()[1:3]
                mount = mount.replace("\\040", " ")
                if (path == mount or path.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best[0]):
                    best = (mount, kind)
    except OSError:
        pass
    return best[1]


def ls_(
    settings: Settings,
    models: Models = None,
    filter: Filter = None,
    sort: Sort = None,
    limit: Limit = None,
    resident: Annotated[bool, typer.Option("--resident", help="Only what is resident.")] = False,
) -> int:
    """List the models of the store."""
    return listing.ls(settings, tuple(models or ()), tuple(filter or ()), sort, limit, resident)


def show_(
    settings: Settings,
    model: OneModel,
    tensors: Annotated[bool, typer.Option("--tensors", help="List its tensors.")] = False,
    files: Annotated[bool, typer.Option("--files", help="List its side files.")] = False,
    path: Annotated[bool, typer.Option("--path", help="Print only the path of its container.")] = False,
    history: Annotated[bool, typer.Option("--history", help="What happened to it in memory, and why.")] = False,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", help="Only the last N of --history.")] = None,
) -> int:
    """Show one model: what it is, where it came from, where it is resident."""
    from trims.disk.catalog import Catalog
    from trims.disk.sidecar import read_sidecar

    if tensors + files + path + history > 1:
        raise UsageError("--tensors, --files, --path and --history exclude each other")
    if limit is not None and (limit < 1 or not history):
        raise UsageError(f"bad limit {limit}" if history else "--limit goes with --history", "", "give 1 or more")
    store = open_store(settings)
    entry = Catalog(store.paths).resolve(model)
    if history:
        from trims_cli import history as past

        return past.show(settings, entry.digest, entry.ref, limit or past.LIMIT)
    if path:
        output.write(store.paths.container(entry.digest) + "\n")
        return 0
    sidecar = read_sidecar(store.paths.sidecar(entry.digest))
    if tensors:
        at = sidecar.manifest.layout.tensors
        items: list[Item] = [
            {"name": t.name, "dtype": t.dtype, "shape": list(t.shape), "nbytes": t.nbytes, "offset": at[t.name],
             "digest": t.digest}
            for t in sidecar.manifest.tensors
        ]  # fmt: skip
        output.emit(settings, "tensors", [_shaped(settings, item) for item in items], TENSORS)
    elif files:
        blobs = [{"name": f.name, "nbytes": f.nbytes, "digest": f.digest} for f in sidecar.manifest.files]
        output.emit(settings, "files", blobs, FILES)
    else:
        _print_model(settings, _describe(settings, store, entry, sidecar))
    return 0


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
        "resident": here
        and [
            {"place": r.place, "variant": r.variant, "state": r.state, "nbytes": r.nbytes, "leases": r.leases,
             "pins": r.pins, "hits": r.hits, "used": rfc3339(r.last_use), "load_seconds": r.load_seconds}
            for r in here
        ],
    }  # fmt: skip


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
        "path": item["path"],
        "variants": ", ".join(f"{v['key']} ({size(v['stored'])})" for v in item["variants"]) or "-",
    }
    resident = item["resident"]
    lines["resident"] = "no manager of this store runs" if resident is None else "no" if not resident else ", ".join(
        f"{r['place']} {r['variant']} {r['state']} ({r['leases']} leases, {r['pins']} pins)" for r in resident
    )  # fmt: skip
    output.write("".join(f"{key + ':':<10} {errors.one_line(text)}\n" for key, text in lines.items()))


def df_(
    settings: Settings,
    by: Annotated[str | None, typer.Option("--by", metavar="model|codec", help="One row for each on disk.")] = None,
) -> int:
    """Show where bytes are, on disk and in memory, and what could be reclaimed."""
    from trims_cli import usage

    output.emit(settings, "df", usage.gather(settings, open_store(settings), by), DF, "what")
    return 0
