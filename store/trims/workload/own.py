"""Models of the user's own as models of a workload: from files, directories of files, and refs of a store."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from trims.disk.catalog import Catalog
from trims.disk.importers import open_source
from trims.disk.store import open_store
from trims.errors import BadInput, NoSuchModel, UsageError
from trims.manifest import ITEM_SIZES
from trims.refs import name_from_path, parse_ref
from trims.workload.models import ModelSpec

SUFFIXES = {".onnx": "onnxruntime", ".safetensors": "weights", ".npz": "weights", ".pt": "torch", ".pth": "torch"}
"""Suffix of a file -> the function that can run it natively."""


def specs(names: Sequence[str], store: str) -> tuple[ModelSpec, ...]:
    """A model for each file, each file of a directory, and each ref of the store whose origin is still there.

    Raises UsageError for a name that is none of these, BadInput for a file that cannot be read or run.
    """
    files = [pair for name in names for pair in _files(name, store)]
    found = [_spec(name, path) for name, path in files]
    if not found:
        raise UsageError("no models to run", "", f"files end with {', '.join(SUFFIXES)}")
    return tuple(found)


def _files(name: str, store: str) -> Iterable[tuple[str, str]]:
    """(name, file) of each model that `name` stands for."""
    if os.path.isdir(name):
        inside = sorted(entry for entry in os.listdir(name) if os.path.splitext(entry)[1] in SUFFIXES)
        return [(name_from_path(entry), os.path.join(name, entry)) for entry in inside]
    if os.path.exists(name):
        return [(name_from_path(name), name)]
    if os.sep in name or os.path.splitext(name)[1] in SUFFIXES:
        raise BadInput(f"model file {name} cannot be read", "there is no such file")
    return [(name, origin(name, store))]


def origin(ref: str, store: str) -> str:
    """The file that the model `ref` of the store was imported from. Raises NoSuchModel, UsageError when it is gone."""
    entry = Catalog(open_store(store).paths, 10.0).find(parse_ref(ref))
    if entry is None:
        raise NoSuchModel(f"no model {ref}", "it is neither a file nor in the store", "see `trims ls`")
    path = str(entry.origin.get("path", ""))
    if not os.path.exists(path):
        raise UsageError(
            f"model {ref} cannot be run natively",
            f"the file it was imported from is gone: {path or 'unknown'}",
            "name a file: `trims export` writes one",
        )
    return path


def _spec(name: str, path: str) -> ModelSpec:
    suffix = os.path.splitext(path)[1]
    if suffix not in SUFFIXES:
        raise BadInput(
            f"{path} cannot be run", "natively it has no loader here", f"files end with {', '.join(SUFFIXES)}"
        )
    with open_source(path) as source:
        tensors = source.tensors
        nbytes = 0
        for tensor in tensors:
            size = ITEM_SIZES[tensor.dtype]
            for n in tensor.shape:
                size *= n
            nbytes += size
    return ModelSpec(name, nbytes, len(tensors), "own", False, os.path.abspath(path), SUFFIXES[suffix])
