"""Readers of other people's files: each turns one format into tensors, a graph and side files.

What a file is, its content says, never its suffix. Only the reader of the format that was found is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from trims.disk.fingerprint import let_settle
from trims.disk.importers.base import bad
from trims.disk.importers.base import noting_files as noting_files
from trims.errors import UsageError

if TYPE_CHECKING:
    from trims.disk.importers.base import Source

FORMATS = ("onnx", "safetensors", "npz", "npy", "h5", "torch")


def open_source(path: str | os.PathLike[str], format: str = "auto") -> Source:
    """Open a model file, or a directory with one, for import. `format` is one of FORMATS, or auto.

    Raises BadInput for anything wrong with the file, UsageError for an unknown format.
    """
    source = _open(os.fspath(path), format)
    if any(file.key is None for file in source.on_disk):
        # Written within this tick of the clock of file times: opened again after it, a later write shows.
        source.close()
        let_settle()
        source = _open(os.fspath(path), format)
    return source


def _open(path: str, format: str) -> Source:
    if format not in ("auto", *FORMATS):
        raise UsageError(f"no format {format!r}", "", f"formats are auto, {', '.join(FORMATS)}")
    if os.path.isdir(path):
        from trims.disk.importers.directory import open_directory

        return open_directory(path, format, open_file)
    return open_file(path, format)


def open_file(path: str, format: str = "auto") -> Source:
    """Open one model file. Raises BadInput."""
    from trims.disk.importers.sniff import sniff

    found = sniff(path)
    if format == "auto":
        if found is None:
            raise bad(path, "it is of no known format", f"known are {', '.join(FORMATS)}; --format forces one")
        format = found
    elif format == "safetensors" and found == "index":
        format = "index"
    return _opener(format)(path)


def _opener(format: str) -> Callable[[str], Source]:
    if format == "onnx":
        from trims.disk.importers.onnx import open_onnx

        return open_onnx
    if format in ("npz", "npy"):
        from trims.disk.importers.npy import open_npy, open_npz

        return open_npz if format == "npz" else open_npy
    if format == "h5":
        from trims.disk.importers.h5 import open_h5

        return open_h5
    if format == "torch":
        from trims.disk.importers.pt import open_torch

        return open_torch
    from trims.disk.importers import safetensors

    return safetensors.open_index if format == "index" else safetensors.open_safetensors
