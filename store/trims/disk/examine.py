"""The first reading of a source: what the model is. Its digests tell which tensors are tied, and so the layout.

Tensors are hashed in threads of our own, one thread each. BLAKE3's own threads would divide a single tensor too, but
they do not survive a fork: a child that hashes would wait for them for ever.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from blake3 import blake3

from trims.disk import codec
from trims.disk.parts import parts
from trims.disk.span import Segment, as_bytes, in_order
from trims.errors import BadInput
from trims.manifest import BlobSpec, Manifest, TensorSpec, check_tensor

if TYPE_CHECKING:
    from trims.disk.importers.base import Source

_STEP = 64 << 20  # bytes hashed between two words of progress

Progress = Callable[[int, int], None]


class Meter:
    """Progress in bytes of the model, (done, in all): examining is one half of it, writing or checking the other."""

    def __init__(self, total: int, report: Progress | None) -> None:
        self.total, self._report, self._done = total, report, 0
        self._lock = threading.Lock()

    def add(self, nbytes: int) -> None:
        """So many bytes more have been examined, or written. Any thread may say so."""
        with self._lock:
            self._done += nbytes
            if self._report:
                self._report(min(self._done // 2, self.total), self.total)

    def finish(self) -> None:
        """All is done, whatever the padding and the ties made of the count."""
        if self._report:
            self._report(self.total, self.total)


class Examined:
    """A source, read once. manifest: what it is; segments: where to read its span; nbytes: of all it brought."""

    def __init__(self, source: Source, progress: Progress | None, domain: str = "") -> None:
        self._source = source
        sizes = [check(t.name, t.dtype, tuple(t.shape)) for t in source.tensors]
        self.nbytes = sum(sizes) + sum(map(len, source.files.values()))
        self.meter = Meter(self.nbytes, progress)
        for name in source.files:
            if not _is_unicode(name):
                raise BadInput(f"file {name!r} cannot be stored", "its name is no valid Unicode")
        views = (as_bytes(t.read(), nbytes, t.name) for t, nbytes in zip(source.tensors, sizes, strict=True))
        digests = in_order(self._digest, views, threads())
        specs = tuple(
            TensorSpec(t.name, t.dtype, tuple(t.shape), digest)
            for t, digest in zip(source.tensors, digests, strict=True)
        )
        if len({spec.name for spec in specs}) != len(specs):
            raise BadInput("the model cannot be stored", "two of its tensors have the same name")
        self._graph = source.graph(Manifest(specs).layout.tensors) if source.graph else None
        self.nbytes += len(self._graph or b"")
        self.meter.total = self.nbytes
        self.manifest = Manifest(
            specs,
            None if self._graph is None else BlobSpec("graph", len(self._graph), self._digest(memoryview(self._graph))),
            tuple(BlobSpec(n, len(data), self._digest(memoryview(data))) for n, data in sorted(source.files.items())),
            domain,
        )

    @property
    def segments(self) -> list[Segment]:
        """The span, part by part."""
        reads = {t.name: t.read for t in self._source.tensors}
        return [
            Segment(
                part.name,
                part.offset,
                part.nbytes,
                codec.plane_width(part.dtype),
                reads[part.name] if part.dtype else self._blob(part.name),
            )
            for part in parts(self.manifest)
        ]

    def _blob(self, name: str) -> Callable[[], memoryview]:
        data = self._graph if name == "graph" else self._source.files[name.removeprefix("file ")]
        return lambda: memoryview(data or b"")

    def _digest(self, data: memoryview) -> str:
        hasher = blake3()
        for start in range(0, len(data), _STEP):
            step = data[start : start + _STEP]
            hasher.update(step)
            self.meter.add(len(step))
        return str(hasher.hexdigest())


def threads() -> int:
    """How many threads hash: one a core, and no more than a disk can feed."""
    return min(8, len(os.sched_getaffinity(0)))


def check(name: str, dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor that can be stored. Raises BadInput."""
    check_tensor(name, dtype, shape)
    if not _is_unicode(name):
        raise BadInput(f"tensor {name!r} cannot be stored", "its name is no valid Unicode")
    return TensorSpec(name, dtype, shape, "").nbytes


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
