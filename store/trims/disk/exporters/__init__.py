"""Export: a model of the store as a file that its format's own library loads.

Each tensor is held to its digest as it is read, so a damaged container is never passed on. The file is written under a
temporary name beside its target and appears whole, or not at all; what is there is replaced only when told to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, BinaryIO

from trims.disk.exporters.reading import ModelReader, Progress
from trims.disk.exporters.target import Target
from trims.errors import TrimsError, UsageError
from trims.linux import atomic

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.store import Store

FORMATS = ("onnx", "safetensors", "npz", "npy", "h5")

Writer = Callable[[Target, ModelReader, Sequence[str]], None]


def export_model(
    store: Store,
    entry: Entry,
    out: str | os.PathLike[str] | BinaryIO,
    *,
    format: str | None = None,
    force: bool = False,
    tensors: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write a model to the file `out`, or to an open one; returns the paths that were written.

    format: one of FORMATS, by default the origin's. force: whether `out` may be there already. tensors: those to write,
    by default all; what names none is a glob pattern. progress: called with (bytes done, bytes in all).
    Raises UsageError, BadInput when the format cannot hold the model, Damaged, NoSpace.
    """
    format = format or entry.origin_format
    writer = _writer(format)
    if isinstance(out, (str, os.PathLike)):
        target = Target(os.fspath(out), None, force)
    else:
        target = Target("the output", out, force)
    target.check()
    try:
        with ModelReader(store, entry, progress) as model:
            names = _chosen(model, tensors, format)
            model.expect(names)
            with target:
                writer(target, model, names)
                target.publish()
    except (TrimsError, BrokenPipeError):
        raise
    except OSError as error:
        raise atomic.translate(error, f"writing {target.path}") from None
    return target.written


def _writer(format: str) -> Writer:
    if format == "onnx":
        from trims.disk.exporters.onnx import write_onnx

        return write_onnx
    if format == "safetensors":
        from trims.disk.exporters.safetensors import write_safetensors

        return write_safetensors
    if format in ("npz", "npy"):
        from trims.disk.exporters.npy import write_npy, write_npz

        return write_npz if format == "npz" else write_npy
    if format == "h5":
        from trims.disk.exporters.h5 import write_h5

        return write_h5
    if format == "torch":
        raise UsageError("PyTorch checkpoints are not written", "they are pickles", "use --format safetensors")
    raise UsageError(f"no format {format!r} to export to", "", f"formats are {', '.join(FORMATS)}")


def _chosen(model: ModelReader, patterns: Sequence[str] | None, format: str) -> list[str]:
    """The names of the tensors to write, in the model's order."""
    names = [spec.name for spec in model.manifest.tensors]
    if patterns is None:
        return names
    if format == "onnx":
        raise UsageError("an ONNX file has all tensors or none", "its graph needs them", "use --format safetensors")
    exact = set(patterns) & set(names)
    globs = [pattern for pattern in patterns if pattern not in exact]
    chosen = [name for name in names if name in exact or any(fnmatchcase(name, glob) for glob in globs)]
    if not chosen:
        raise UsageError("no tensor matches", ", ".join(map(repr, patterns)), "see `trims show --tensors`")
    return chosen
