"""Memory of a GPU as one range of addresses: the slabs of a region, imported and mapped side by side, or own."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Protocol

from trims.devices.driver import Driver


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
        self._driver, self.nbytes = driver, sum(sizes)
        self.address = driver.reserve(self.nbytes)
        mapped = 0
        try:
            for fd, size in zip(fds, sizes, strict=True):
                handle = driver.import_(fd)
                try:
                    driver.map(self.address + mapped, size, handle)
                finally:
                    driver.release(handle)
                mapped += size
            driver.allow(self.address, self.nbytes, ordinal, write)
        except BaseException:
            self._give_back(mapped)
            raise

    def __enter__(self) -> GpuRange:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._give_back(self.nbytes)

    def _give_back(self, mapped: int) -> None:
        if mapped:
            self._driver.unmap(self.address, mapped)
        self._driver.free(self.address, self.nbytes)
