"""The commands about what the store holds: init, ls, show, df, and (cmd_care) verify, rm, gc."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trims.errors import UsageError
from trims_cli import listing, output
from trims_cli.cmd_care import gc_, rm_, share_, verify_
from trims_cli.options import Filter, Limit, Models, OneModel, Sort
from trims_cli.output import Column
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.store import Store

__all__ = ["df_", "gc_", "init_", "ls_", "rm_", "share_", "show_", "verify_"]

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
    system: Annotated[
        bool, typer.Option("--system", help="Closed to users, whom a manager of system scope serves.")
    ] = False,
) -> int:
    """Make a store."""
    import os

    from trims.disk.store import create_store

    if system and shared is not None:
        raise UsageError("--system and --shared exclude each other", "users of the one never touch its files")
    root = os.path.abspath(directory) if directory is not None else settings.config.store
    existed = os.path.exists(f"{root}/store.json")
    store = create_store(root, codec or settings.config["store.codec"], if_missing, _group(shared), system)
    item = {
        "store": store.root, "id": store.id, "codec": store.codec, "made": not existed, "filesystem": file_system(root),
        "scope": "system" if store.system else "user",
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
    if tensors + files + path + history > 1:
        raise UsageError("--tensors, --files, --path and --history exclude each other")
    if limit is not None and (limit < 1 or not history):
        raise UsageError(f"bad limit {limit}" if history else "--limit goes with --history", "", "give 1 or more")
    from trims_cli import showing

    what = "tensors" if tensors else "files" if files else "path" if path else "history" if history else ""
    return showing.show(settings, model, what, limit)


def df_(
    settings: Settings,
    by: Annotated[str | None, typer.Option("--by", metavar="model|codec", help="One row for each on disk.")] = None,
) -> int:
    """Show where bytes are, on disk and in memory, and what could be reclaimed."""
    from trims_cli import usage

    columns = DF if by is not None else (Column("WHAT", "what", "place"), *DF[1:])
    output.emit(settings, "df", usage.gather(settings, open_store(settings), by), columns, "what")
    return 0
