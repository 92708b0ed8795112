"""The bytes of a stored model for a writer: tensor by tensor, each held to its digest when it is asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from trims.disk.direct import open_container
from trims.disk.reader import SpanFile, damaged, read_blob
from trims.manifest import Manifest, TensorSpec

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.store import Store

Progress = Callable[[int, int], None]


class ModelReader:
    """A model of the store, held and open. A context manager; its views end with it.

    An uncompressed container is mapped, so that a tensor of any size costs no memory; a compressed one is decompressed
    a tensor at a time.
    """

    def __init__(self, store: Store, entry: Entry, progress: Progress | None = None) -> None:
        self._progress, self._done, self._total = progress, 0, 0
        self._container = open_container(store, entry)
        self._sidecar = self._container.sidecar
        self._specs = {spec.name: spec for spec in self.manifest.tensors}
        self._mapping: mmap.mmap | None = None
        self._file: SpanFile | None = None
        try:
            if self._sidecar.frames is None:
                self._mapping = mmap.mmap(self._container.fd, 0, prot=mmap.PROT_READ)
            else:
                self._file = SpanFile(self._container.path, self._sidecar)
        except BaseException:
            self._container.close()
            raise

    def __enter__(self) -> ModelReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.__exit__()
        if self._mapping is not None:
            try:
                self._mapping.close()
            except BufferError:
                pass  # a view that an exception's traceback still holds: then with that
        self._container.close()

    @property
    def manifest(self) -> Manifest:
        return self._sidecar.manifest

    @property
    def origin(self) -> dict[str, Any]:
        return self._sidecar.origin

    def spec(self, name: str) -> TensorSpec:
        return self._specs[name]

    def expect(self, names: Iterable[str]) -> None:
        """These tensors will be asked for: what progress is measured against."""
        self._total = sum(self._specs[name].nbytes for name in names)

    def tensor(self, name: str) -> memoryview:
        """The bytes of one tensor. Raises Damaged when they are not what was imported."""
        spec = self._specs[name]
        offset = self.manifest.layout.tensors[name]
        if self._mapping is not None:
            start = self._sidecar.span_offset + offset
            data = memoryview(self._mapping)[start : start + spec.nbytes]
        else:
            assert self._file is not None
            data = memoryview(self._file.read(offset, spec.nbytes))
        hasher = blake3(data)  # one thread: those of BLAKE3 do not survive a fork
        if hasher.hexdigest() != spec.digest:
            raise damaged(self._container.path, [name])
        self._done += spec.nbytes
        if self._progress:
            self._progress(min(self._done, self._total), self._total)
        return data

    def graph(self) -> bytes | None:
        """The graph, or None when the model has none."""
        return None if self.manifest.graph is None else self.blob("graph")

    def blob(self, name: str) -> bytes:
        """The graph (`graph`) or a side file (`file NAME`)."""
        return read_blob(self._container.path, self._sidecar, name)
