"""What a GPU's worker does: fill a range from a container, from host memory or from another GPU.

From the disk, pieces are read and checked into page-locked buffers and copied from there, so disk, digest and bus work
at the same time. Host regions are sealed and were checked on their way in: they are copied through the same buffers, or
straight from where they are once they are registered (`trims.transfer.registry`). Another GPU's memory is copied
across where the hardware can; whoever has it may have written to it, so what arrived is read back and checked.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

from xxhash import xxh3_128_hexdigest

from trims.disk.crew import Tally, share
from trims.disk.parts import CONTAINER, parts_of_piece
from trims.disk.reader import damaged, pour
from trims.disk.sidecar import Sidecar
from trims.transfer.bounce import Bounce, Upload
from trims.transfer.gpu_range import Range

Step = Callable[[int], None]
"""Called with the bytes done so far; raises Cancelled to end the work."""
STRIDE = 64 << 20
"""Bytes of one copy where no buffer bounds it: large enough for full speed, small enough to be cancelled soon."""


def from_disk(bounce: Bounce, to: Range, path: str, sidecar: Sidecar, step: Step) -> None:
    """Fill from a container. Raises Damaged, Cancelled, NoSuchModel, DeviceLost."""
    try:
        pour(path, sidecar, Upload(bounce, to.address), threads=bounce.threads, progress=step)
    finally:
        bounce.drain()


def from_host(bounce: Bounce, to: Range, address: int, nbytes: int, step: Step) -> None:
    """Fill from a host region that is mapped at `address`, through the buffers. Raises Cancelled, DeviceLost."""
    driver, ordinal, pairs = bounce.driver, bounce.ordinal, bounce.pairs()
    tally = Tally(step)

    def work(starts: Iterator[int]) -> None:
        slots = pairs.pop()  # one step: threads need no lock for it
        for start in starts:
            size = min(bounce.piece, nbytes - start)
            slot = next(slots).ready()
            ctypes.memmove(slot.address, address + start, size)  # without the interpreter's lock
            driver.copy_in(ordinal, to.address + start, slot.address, size, slot.stream)
            tally.add(size)

    try:
        share(range(0, nbytes, bounce.piece), work, bounce.threads, "trims-copy")
    finally:
        bounce.drain()


def from_registered(bounce: Bounce, to: Range, address: int, nbytes: int, step: Step) -> None:
    """Fill from host memory that is registered, without a copy on the way. Raises Cancelled, DeviceLost."""
    driver, ordinal = bounce.driver, bounce.ordinal
    _in_strides(
        bounce, nbytes, step, lambda at, size, on: driver.copy_in(ordinal, to.address + at, address + at, size, on)
    )


def from_peer(bounce: Bounce, to: Range, source: Range, nbytes: int, step: Step) -> None:
    """Fill from another GPU's memory. Raises Cancelled, DeviceLost."""
    driver, ordinal = bounce.driver, bounce.ordinal
    _in_strides(
        bounce,
        nbytes,
        step,
        lambda at, size, on: driver.copy_across(ordinal, to.address + at, source.address + at, size, on),
    )


def check(bounce: Bounce, there: Range, path: str, sidecar: Sidecar, step: Step) -> None:
    """Read a range back and hold it to the digests of its pieces. path: the container's. Raises Damaged, Cancelled."""
    driver, ordinal, pairs = bounce.driver, bounce.ordinal, bounce.pairs()

    def work(indices: Iterator[int]) -> None:
        slots = pairs.pop()
        for index in indices:
            start, nbytes = sidecar.piece(index)
            slot = next(slots)
            driver.copy_out(ordinal, slot.address, there.address + start, nbytes, slot.stream)
            if xxh3_128_hexdigest(slot.ready().view[:nbytes]) != sidecar.pieces[index]:
                raise damaged(path, [part.name for part in parts_of_piece(sidecar, index)] or [CONTAINER])
            step(sidecar.span_nbytes)

    share(range(len(sidecar.pieces)), work, bounce.threads, "trims-copy")


def _in_strides(bounce: Bounce, nbytes: int, step: Step, copy: Callable[[int, int, int], None]) -> None:
    """Copy stride by stride, two on their way at a time."""
    slots = bounce.pairs()[0]
    try:
        for start in range(0, nbytes, STRIDE):
            slot = next(slots).ready()
            copy(start, min(STRIDE, nbytes - start), slot.stream)
            step(start)
    finally:
        bounce.drain()
    step(nbytes)
