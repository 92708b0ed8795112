"""export: models out of the store."""

from __future__ import annotations

import os
import sys
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from trims.errors import TrimsError, UsageError
from trims_cli import output
from trims_cli.options import OneModel
from trims_cli.output import Column
from trims_cli.progress import Meter
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.store import Store

EXPORTED = (
    Column("NAME", "name"), Column("FORMAT", "format"), Column("SIZE", "nbytes", "size"), Column("PATH", "path"),
)  # fmt: skip


def export_(
    settings: Settings,
    model: OneModel,
    out: Annotated[str, typer.Option("--output", "-o", metavar="OUT", help="Where to; - is standard output.")],
    file_format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="onnx, safetensors or npz; that of its origin.")
    ] = None,
    tensor: Annotated[
        list[str] | None, typer.Option("--tensor", metavar="GLOB", help="Only these tensors; repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> int:
    """Write a model as a file its own library loads."""
    from trims.disk.catalog import Catalog
    from trims_cli.cmd_store import open_store

    store = open_store(settings)
    entry = Catalog(store.paths).resolve(model)
    names = _tensors(store, entry.digest, tensor)
    if out == "-":
        return _stream(settings, store, entry, file_format, names)
    _write(settings, store, entry, out, file_format, force, names)
    item = {
        "name": entry.ref, "id": entry.digest, "format": file_format or entry.origin_format,
        "nbytes": _size(out),
    }  # fmt: skip
    output.emit(settings, "export", [output.with_path(item, os.path.abspath(out))], EXPORTED, None)
    return 0


def _write(
    settings: Settings, store: Store, entry: Entry, out: str, format: str | None, force: bool, names: list[str] | None
) -> None:
    from trims.disk.exporters import export_model

    with Meter(settings, entry.ref, "export") as meter:
        export_model(store, entry, out, format=format, force=force, tensors=names, progress=meter)


def _tensors(store: Store, digest: str, globs: list[str] | None) -> list[str] | None:
    if not globs:
        return None
    from fnmatch import fnmatchcase

    from trims.disk.sidecar import read_sidecar

    known = [t.name for t in read_sidecar(store.paths.sidecar(digest)).manifest.tensors]
    chosen = [name for name in known if any(fnmatchcase(name, glob) for glob in globs)]
    if not chosen:
        raise UsageError("no tensor matches", ", ".join(map(repr, globs)), "see `trims show --tensors`")
    return chosen


def _stream(settings: Settings, store: Store, entry: Entry, format: str | None, names: list[str] | None) -> int:
    """To standard output, by way of a file: formats are written with seeks."""
    import shutil

    if sys.stdout.isatty():
        raise UsageError("a model is no text for a terminal", "", "redirect the output, or name a file with -o")
    settings.quiet = True
    with tempfile.TemporaryDirectory(prefix="trims-") as directory:
        path = os.path.join(directory, "model")
        _write(settings, store, entry, path, format, False, names)
        if len(os.listdir(directory)) > 1:
            why = "it is over 2 GiB, which takes ONNX two files"
            raise UsageError("the model cannot go to standard output", why, "name a file with -o")
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
    return 0


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError as error:
        raise TrimsError(f"cannot look at {path}", os.strerror(error.errno or 0)) from None
