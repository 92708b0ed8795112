"""Page-locked buffers on the way to a GPU: while the driver copies one, its thread fills the other.

A GPU copies at full speed, and beside other work, only from page-locked memory, and to lock memory takes longer than to
copy it (0.1 s a GB). So every thread that reads has two buffers of a piece each, locked once, for all loads.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Iterator

from trims.devices.driver import Driver
from trims.disk.sidecar import PIECE
from trims.errors import TrimsError

THREADS = min(8, max(2, len(os.sched_getaffinity(0)) // 2))
"""Threads that read, or copy into the buffers: the other cores are for those who compute."""


def host_nbytes() -> int:
    """Bytes of host memory that a GPU's worker locks for its buffers."""
    return 2 * THREADS * PIECE


class Slot:
    """One buffer, with the stream that empties it."""

    __slots__ = ("_driver", "_ordinal", "address", "stream", "view")

    def __init__(self, driver: Driver, ordinal: int, nbytes: int) -> None:
        self._driver, self._ordinal = driver, ordinal
        self.address = driver.pin(ordinal, nbytes)
        try:
            self.stream = driver.stream(ordinal)
        except BaseException:
            driver.unpin(ordinal, self.address)
            raise
        self.view = memoryview((ctypes.c_ubyte * nbytes).from_address(self.address)).cast("B")

    def ready(self) -> Slot:
        """Wait until what was last copied from here, or to here, is copied. Raises DeviceLost."""
        self._driver.wait(self._ordinal, self.stream)
        return self

    def close(self) -> None:
        self.view.release()
        self._driver.end_stream(self._ordinal, self.stream)
        self._driver.unpin(self._ordinal, self.address)


class Bounce:
    """The buffers of one process for one GPU, whose context it keeps open: two for each of `threads`."""

    def __init__(self, driver: Driver, ordinal: int, threads: int, nbytes: int) -> None:
        self.driver, self.ordinal, self.threads, self.piece = driver, ordinal, threads, nbytes
        self._slots: list[Slot] = []
        try:
            for _ in range(2 * threads):
                self._slots.append(Slot(driver, ordinal, nbytes))
        except BaseException:
            self.close()
            raise

    def pairs(self) -> list[Iterator[Slot]]:
        """For each thread its two slots, in turn for ever."""
        return [itertools.cycle(self._slots[2 * n : 2 * n + 2]) for n in range(self.threads)]

    def drain(self) -> None:
        """Wait until every copy is done. Raises the first failure, when all have been waited for."""
        failure: TrimsError | None = None
        for slot in self._slots:
            try:
                slot.ready()
            except TrimsError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def close(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots.clear()


class Upload:
    """A range on the GPU as the destination of a span (`trims.disk.reader.Destination`): read, checked, then copied."""

    def __init__(self, bounce: Bounce, address: int) -> None:
        self._bounce, self._to = bounce, address
        self._pairs = bounce.pairs()
        self._mine = threading.local()

    def take(self, offset: int, nbytes: int) -> memoryview:
        mine = self._mine
        if not hasattr(mine, "slots"):
            mine.slots = self._pairs.pop()  # one step: threads need no lock for it
        mine.slot = next(mine.slots).ready()
        view: memoryview = mine.slot.view[:nbytes]
        return view

    def put(self, offset: int, view: memoryview) -> None:
        slot: Slot = self._mine.slot
        bounce = self._bounce
        bounce.driver.copy_in(bounce.ordinal, self._to + offset, slot.address, len(view), slot.stream)
