"""From a container into memory, every byte checked on its way: how a model becomes resident.

A few threads take pieces in order (disk.spanfile tells where the bytes come from); what arrives is hashed while it is
in the processor's cache, several times faster than afterwards. Frames are decoded straight into the destination. A
piece that does not match its hash is never handed out: `Damaged` names the tensor that the bad bytes belong to.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from blake3 import blake3

from trims.disk.parts import parts
from trims.disk.sidecar import Sidecar
from trims.disk.spanfile import SpanFile, damaged
from trims.errors import Damaged, NoSuchModel, TrimsError

__all__ = ["Cancelled", "Destination", "SpanFile", "damaged", "fill", "pour", "read_blob"]


class Cancelled(TrimsError):
    """The reader was told to stop: nobody waits for this load any more."""

    code = "cancelled"
    exit_code = 1


class Destination(Protocol):
    """Where the pieces of a span go. Several threads have one piece each in hand."""

    def take(self, offset: int, nbytes: int) -> memoryview:
        """Writable memory for these bytes of the span, this thread's until its `put`."""

    def put(self, offset: int, view: memoryview) -> None:
        """What `take` gave holds these bytes now, and they are what they should be."""


def pour(
    path: str,
    sidecar: Sidecar,
    destination: Destination,
    *,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Bring the model's span to `destination`, verified; arguments and errors as of `fill`."""
    with SpanFile(path, sidecar) as file:
        _Pouring(file, destination, progress, cancelled).run(min(threads, len(sidecar.pieces)))


def fill(
    path: str,
    sidecar: Sidecar,
    buffer: memoryview,
    *,
    threads: int = 2,
    prepare: Callable[[int, int], None] | None = None,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Fill the first `span_nbytes` of the writable `buffer` with the model's region, verified.

    prepare: called with (offset, nbytes) before those bytes of the buffer are written, from any thread.
    progress: called with the bytes done so far, from any thread, one at a time. cancelled: asked before each piece.
    Raises Damaged, Cancelled, NoSuchModel, and what `prepare` raises.
    """
    out = memoryview(buffer).cast("B")
    if len(out) < sidecar.span_nbytes:
        raise ValueError(f"the buffer has {len(out)} bytes, the span {sidecar.span_nbytes}")
    there = _Memory(out[: sidecar.span_nbytes], prepare)
    pour(path, sidecar, there, threads=threads, progress=progress, cancelled=cancelled)


class _Memory:
    """A buffer as the destination: pieces are read to where they belong."""

    def __init__(self, out: memoryview, prepare: Callable[[int, int], None] | None) -> None:
        self._out, self._prepare = out, prepare

    def take(self, offset: int, nbytes: int) -> memoryview:
        if self._prepare:
            self._prepare(offset, nbytes)
        return self._out[offset : offset + nbytes]

    def put(self, offset: int, view: memoryview) -> None:
        """It is there."""


def read_blob(path: str, sidecar: Sidecar, name: str) -> bytes:
    """The graph (`graph`) or a side file (`file NAME`), verified. Raises NoSuchModel when the model has none such."""
    for part in parts(sidecar.manifest):
        if part.name == name and not part.dtype:
            with SpanFile(path, sidecar) as file:
                data = file.read(part.offset, part.nbytes)
            if blake3(data).hexdigest() != part.digest:
                raise damaged(path, [name])
            return data
    raise NoSuchModel(f"the model has no {name}", "", "see `trims show`")


class _Pouring:
    """Pieces handed out to threads, the first failure kept."""

    def __init__(
        self,
        file: SpanFile,
        destination: Destination,
        progress: Callable[[int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._file, self._destination = file, destination
        self._progress, self._cancelled = progress, cancelled
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._done = 0
        self._failure: BaseException | None = None

    def run(self, threads: int) -> None:
        """Do it all, in this thread and `threads` - 1 others."""
        helpers = [threading.Thread(target=self._work, name="trims-read") for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        self._work()
        for helper in helpers:
            helper.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            pieces = self._file.sidecar.pieces
            while self._failure is None and (index := next(self._next)) < len(pieces):
                if self._cancelled and self._cancelled():
                    raise Cancelled("the load was cancelled")
                self._piece(index, pieces[index])
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _piece(self, index: int, digest: str) -> None:
        start, nbytes = self._file.sidecar.piece(index)
        view = self._destination.take(start, nbytes)
        try:
            whole = self._file.read_piece(index, view) == digest
        except Damaged:
            whole = False
        if not whole:
            raise damaged(self._file.path, self._file.blame(index))
        self._destination.put(start, view)
        with self._lock:
            self._done += nbytes
            if self._progress:
                self._progress(self._done)
