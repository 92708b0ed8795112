"""HDF5: every dataset of numbers is a tensor, named by its path.

A file can point out of itself in four ways: external links, soft links through them, external storage and virtual
datasets. All are refused, and links are looked at before they are followed, so that no other file is ever opened.
Soft links to datasets of the file are tied tensors. Attributes are not kept. bfloat16 and float8, which HDF5 does not
have, are integers with an attribute `trims_dtype`; `trims_name` is the name of a tensor that no path can spell.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from trims.disk.importers.base import (
    LIBRARY_ERRORS,
    MAX_TENSORS,
    MappedFile,
    Source,
    SourceTensor,
    bad,
    check_ratio,
    check_source,
    quoted,
)
from trims.errors import BadInput
from trims.manifest import ITEM_SIZES, STORAGE

_ERRORS = (*LIBRARY_ERRORS, OSError)
_MAX_DEPTH = 64


def open_h5(path: str) -> Source:
    """One file. Raises BadInput."""
    mapped = MappedFile(path)  # is it a regular file: HDF5 would wait at a FIFO
    nbytes = mapped.nbytes
    mapped.close()
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except _ERRORS as error:
        raise bad(path, f"it is no HDF5 file, or a damaged one: {_first_line(error)}", "it may be cut") from None
    try:
        tensors = sorted(_Walk(path, nbytes).tensors(file), key=lambda tensor: tensor.name)
        origin: dict[str, Any] = {"path": os.path.abspath(path), "nbytes": nbytes}
        return check_source(path, Source("h5", tensors, origin=origin, closers=[file.close]))
    except BadInput:
        file.close()
        raise
    except _ERRORS as error:
        file.close()
        raise bad(path, f"it is damaged: {_first_line(error)}") from None


class _Walk:
    """One walk over the hard links of a file; soft links are resolved among what it found."""

    def __init__(self, path: str, nbytes: int) -> None:
        self._path, self._nbytes = path, nbytes
        self._datasets: dict[str, Any] = {}
        self._soft: list[tuple[str, str]] = []
        self._groups: set[Any] = set()

    def tensors(self, file: Any) -> Iterator[SourceTensor]:
        self._visit(file["/"], "", 0)
        for name, dataset in self._datasets.items():
            yield self._tensor(name, dataset)
        for name, target in self._soft:
            if target not in self._datasets:
                raise bad(
                    self._path,
                    f"the soft link {quoted(name)} leads to {quoted(target)}, which is no dataset of the file",
                )
            yield self._tensor(name, self._datasets[target], alias=True)

    def _visit(self, group: Any, prefix: str, depth: int) -> None:
        info = h5py.h5o.get_info(group.id)
        if depth > _MAX_DEPTH or (info.fileno, info.addr) in self._groups:
            raise bad(self._path, f"its groups are nested too deep or linked in a circle at {prefix!r}")
        self._groups.add((info.fileno, info.addr))
        for key in list(group):
            name = prefix + key
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.SoftLink):
                self._soft.append((name, _resolve(prefix, link.path)))
            elif not isinstance(link, h5py.HardLink):
                raise bad(self._path, f"{quoted(name)} is a link to another file", "copy what it links to")
            else:
                self._object(group[key], name, depth)

    def _object(self, found: Any, name: str, depth: int) -> None:
        if isinstance(found, h5py.Group):
            self._visit(found, name + "/", depth + 1)
        elif isinstance(found, h5py.Dataset):
            if len(self._datasets) >= MAX_TENSORS:
                raise bad(self._path, f"it has over {MAX_TENSORS} datasets")
            self._datasets[name] = found

    def _tensor(self, name: str, dataset: Any, alias: bool = False) -> SourceTensor:
        if dataset.is_virtual or dataset.external:
            raise bad(self._path, f"the data of {quoted(name)} are in other files", "copy them into this one")
        dtype = dataset.dtype
        if dtype.hasobject or dtype.names or dtype.kind not in "biufc" or dtype.name not in ITEM_SIZES:
            raise bad(self._path, f"{quoted(name)} has the type {str(dtype)[:100]!r}, which no tensor can have")
        if dataset.shape is None:
            raise bad(self._path, f"{quoted(name)} has no data")
        check_ratio(
            self._path, name, int(dataset.size) * dtype.itemsize, min(dataset.id.get_storage_size(), self._nbytes)
        )
        kind = self._kind(dataset, dtype.name)
        true_name = None if alias else dataset.attrs.get("trims_name")

        def read() -> memoryview:
            if 0 in dataset.shape:
                return memoryview(b"")
            try:
                out = np.empty(dataset.shape, dtype.newbyteorder("<"))
                dataset.read_direct(out)
            except _ERRORS as error:
                raise bad(self._path, f"{quoted(name)} cannot be read: {_first_line(error)}") from None
            return out.reshape(-1).view(np.uint8).data

        return SourceTensor(true_name if isinstance(true_name, str) else name, kind, tuple(dataset.shape), read)

    def _kind(self, dataset: Any, stored: str) -> str:
        """The dtype of a dataset that is stored as `stored`."""
        named = dataset.attrs.get("trims_dtype")
        return named if isinstance(named, str) and STORAGE.get(named) == stored else stored


def _resolve(prefix: str, target: str) -> str:
    """The path that a soft link in the group `prefix` leads to. HDF5 knows `.` but no `..`."""
    whole = target if target.startswith("/") else prefix + target
    return "/".join(part for part in whole.split("/") if part not in ("", "."))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
