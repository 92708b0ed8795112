"""Weights in the memory of a GPU, as this process sees them: slabs mapped in one range of addresses, for reading only.

As in host memory there is no "unmap": all that is handed out holds the mapping, which ends with the last of it, once
the GPU has done what this process gave it to do; then the lease goes back. The process has the GPU's primary context
as long as it has such a mapping; frameworks use the same one. What writes to the memory ends that context, so mapping
for reading only guards against mistakes; it is no wall against a program that maps the memory anew for itself.
(`trims.client.device_ipc` is for GPUs whose memory cannot be mapped so.)

CUDA does not survive a fork. A child can use the side files of what its parent opened, never the weights, and leaves
the mapping alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NoReturn

import numpy as np

from trims.devices.driver import Driver
from trims.errors import DeviceLost, TrimsError, UsageError
from trims.transfer.gpu_range import GpuRange

_Steps = list[tuple[Any, ...]]
"""What takes a mapping back, the last first: calls with their arguments."""


class _Calling:
    """Calls of the driver by this thread: mappings whose last user goes meanwhile are taken back after them.

    Their end may come at any allocation, in the garbage collector: also in the middle of a call of the driver, which
    may hold a lock of its own.
    """

    def __init__(self) -> None:
        self._threads: set[int] = set()
        self._ended: deque[_Steps] = deque()

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())
        self._take_back()

    def end(self, steps: _Steps) -> None:
        """Take a mapping back, now or when this thread has done what it is in."""
        self._ended.append(steps)
        if threading.get_ident() not in self._threads:
            self._take_back()

    def _take_back(self) -> None:
        own = threading.get_ident()
        while self._ended:
            self._threads.add(own)
            try:
                undo(self._ended.popleft())
            except IndexError:
                pass  # another thread took it
            finally:
                self._threads.discard(own)


_calling = _Calling()


def undo(steps: _Steps) -> None:
    """Make all calls that are left, the last first, whatever comes of each: a GPU that is lost keeps nothing."""
    while steps:
        call, *arguments = steps.pop()
        try:
            call(*arguments)
        except TrimsError:
            pass


class Mapped:
    """One range of addresses of a GPU with all slabs of a region, in order; it goes with its last user.

    address, nbytes: of the range. ordinal: of the GPU in this process. context_seconds: what it took to have the GPU's
    primary context, which is long when nothing in the process had it yet; attach_seconds: to import and map the slabs.
    tail: of the region, mapped as long as the slabs: by that the next manager knows who holds what the last one left.
    """

    __slots__ = (
        "__weakref__", "_end", "_getpid", "_is_finalizing", "_pid", "_steps", "address", "attach_seconds",
        "context_seconds", "driver", "nbytes", "ordinal", "tail",
    )  # fmt: skip

    def __init__(
        self, driver: Driver, ordinal: int, slabs: Sequence[int], fds: Sequence[int], release: Callable[[], None]
    ) -> None:
        """slabs: the bytes of each; fds: its descriptor, which stays the caller's. Raises DeviceLost.

        release: called when the memory is no longer mapped, once it was. It must neither raise nor block.
        """
        self.driver, self.ordinal, self.nbytes = driver, ordinal, sum(slabs)
        self.tail: object = None
        self._pid = os.getpid()
        # Bound here: at the interpreter's end the modules' own names may be gone.
        self._getpid, self._is_finalizing, self._end = os.getpid, sys.is_finalizing, _calling.end
        self._steps: _Steps = []
        with _calling:
            try:
                begun = perf_counter()
                driver.open(ordinal)
                self._steps.append((driver.close, ordinal))
                opened = perf_counter()
                self._map(slabs, fds)
            except BaseException:
                undo(self._steps)
                raise
        self._steps.insert(0, (release,))
        self.context_seconds, self.attach_seconds = opened - begun, perf_counter() - opened

    def _map(self, slabs: Sequence[int], fds: Sequence[int]) -> None:
        there = GpuRange(self.driver, self.ordinal, fds, slabs, write=False)
        self.address = at = there.address
        self._steps += [(there.close,), (self.driver.synchronize, self.ordinal)]
        for nbytes in slabs:
            access = self.driver.access(at, self.ordinal)
            if access != "read":
                why = f"the driver gives access {access or 'none'!r} where 'read' was asked for"
                raise DeviceLost("a model cannot be mapped on a GPU for reading only", why)
            at += nbytes

    def check(self) -> None:
        """Raise DeviceLost in a forked child."""
        if self._getpid() != self._pid:
            raise DeviceLost(
                "weights on a GPU cannot be used in a forked child",
                f"process {self._pid} opened them, and CUDA does not survive a fork",
                "start processes by spawn, and open the model in each",
            )

    def read(self, address: int, into: np.ndarray[Any, Any]) -> None:
        """Copy what lies at an address to `into`, contiguous host memory, all of it. Raises DeviceLost."""
        self.check()
        if not into.nbytes:
            return
        driver = self.driver
        with _calling:
            stream = driver.stream(self.ordinal)
            try:
                driver.copy_out(self.ordinal, into.ctypes.data, address, into.nbytes, stream)
                driver.wait(self.ordinal, stream)
            finally:
                driver.end_stream(self.ordinal, stream)

    def __reduce__(self) -> NoReturn:
        raise UsageError("memory of a GPU cannot be pickled", "it belongs to this process")

    def __del__(self) -> None:
        if not self._steps or self._is_finalizing():
            return  # at its end a process gives up everything at once, and CUDA may have ended before it
        if self._getpid() != self._pid:
            self._steps[0][0]()  # the lease alone, as with host memory: its socket may be the child's last
            return
        self._end(self._steps)
