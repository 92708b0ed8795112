"""From a container into memory, every byte checked on its way: how a model becomes resident.

A few threads take pieces in order (disk.spanfile tells where the bytes come from); what arrives is hashed while it is
in the processor's cache, several times faster than afterwards. Frames are decoded straight into the destination. A
piece that does not match its hash is never handed out: `Damaged` names the tensor that the bad bytes belong to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from blake3 import blake3

from trims.disk.crew import Tally, share
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
    tally = Tally(progress)

    def work(indices: Iterator[int]) -> None:
        for index in indices:
            if cancelled and cancelled():
                raise Cancelled("the load was cancelled")
            tally.add(_piece(file, index, destination))

    with SpanFile(path, sidecar) as file:
        count = len(sidecar.pieces)
        share(range(count), work, min(threads, count), "trims-read")


def _piece(file: SpanFile, index: int, destination: Destination) -> int:
    """Bring one piece there. Returns its bytes; raises Damaged when they are not what they should be."""
    start, nbytes = file.sidecar.piece(index)
    view = destination.take(start, nbytes)
    try:
        whole = file.read_piece(index, view) == file.sidecar.pieces[index]
    except Damaged:
        whole = False
    if not whole:
        raise damaged(file.path, file.blame(index))
    destination.put(start, view)
    return nbytes


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
