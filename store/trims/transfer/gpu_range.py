"""Memory of a GPU as one range of addresses: the slabs of a region, imported and mapped side by side, or own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, Protocol

from trims.devices.driver import Driver
from trims.errors import TrimsError


class Range(Protocol):
    """Where the bytes of a region are in this process."""

    @property
    def address(self) -> int: ...


class Own(NamedTuple):
    """A range that this process allocated."""

    address: int
    nbytes: int


class GpuRange:
    """A context manager. address, nbytes: of the whole range, in this process. Raises DeviceLost, NoRoom."""

    def __init__(self, driver: Driver, ordinal: int, fds: Sequence[int], sizes: Sequence[int], write: bool) -> None:
        """ordinal: the GPU that is to reach it, which need not be the one that it is on. The fds stay the caller's."""
        self.nbytes = sum(sizes)
        at = self.address = driver.reserve(self.nbytes)
        self._undo: list[Callable[[], None]] = [partial(driver.free, at, self.nbytes)]
        try:
            for fd, size in zip(fds, sizes, strict=True):
                handle = driver.import_(fd)
                try:
                    driver.map(at, size, handle)
                    self._undo.append(partial(driver.unmap, at, size))  # what was mapped as one is unmapped as one
                finally:
                    driver.release(handle)  # the mapping alone keeps the memory
                at += size
            driver.allow(self.address, self.nbytes, ordinal, write)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the addresses back, and with them this process's hold on the memory. Twice is once; raises nothing."""
        while self._undo:
            try:
                self._undo.pop()()
            except TrimsError:
                pass  # a GPU that is lost keeps nothing

    def __enter__(self) -> GpuRange:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
