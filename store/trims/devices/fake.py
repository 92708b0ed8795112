"""A place in plain memory, for tests and the simulator: the interface of the real ones, a limit, and chosen failures.

It keeps the same contract (tests/contract), so what passes on it fails on a real place only for reasons of that place.
What it exports is an ordinary file in memory: it is not protected against its readers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Container

from trims.devices.base import Device, DeviceStatistics, Region
from trims.errors import DeviceLost, NoRoom
from trims.linux import memfd
from trims.places import HOST


class FakeRegion(Region):
    """A bytearray; a file in memory once it was asked for."""

    def __init__(self, device: FakeDevice, nbytes: int, fails: bool) -> None:
        self.nbytes = nbytes
        self._device, self._fails = device, fails
        self._data: bytearray | None = bytearray(nbytes)
        self._view: memoryview | None = memoryview(self._data)
        self._fd = -1

    @property
    def buffer(self) -> memoryview:
        if self._view is None:
            raise RuntimeError("the region is sealed or closed")
        return self._view

    def seal(self) -> None:
        self._device.check()
        if self._fails:
            raise DeviceLost(f"{self._device.place} failed", "a seal was chosen to fail")
        self.buffer.release()
        self._view = None

    def export(self) -> int:
        if self._view is not None or self._data is None:
            raise RuntimeError("only a sealed region can be exported")
        self._device.check()
        if self._fd < 0:
            fd = memfd.create("trims-fake", self.nbytes)
            os.pwrite(fd, self._data, 0)
            self._fd = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            os.close(fd)
        return self._fd

    def close(self) -> None:
        self._view = self._data = None
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        self._device._closed(self)


class FakeDevice(Device):
    """`limit` bytes. fail_allocations, fail_seals: which of them (counted from 1) fail; `lose` fails all from then."""

    def __init__(
        self,
        limit: int,
        place: str = HOST,
        fail_allocations: Container[int] = (),
        fail_seals: Container[int] = (),
    ) -> None:
        self.place, self.limit = place, limit
        self._fail_allocations, self._fail_seals = fail_allocations, fail_seals
        self._lock = threading.Lock()
        self._regions: set[FakeRegion] = set()
        self._count = self._spare = 0
        self._lost = False

    def allocate(self, name: str, nbytes: int) -> FakeRegion:
        self.check()
        size = memfd.pages(nbytes)
        with self._lock:
            self._count += 1
            self._spare = max(0, self._spare - size)
            used = sum(r.nbytes for r in self._regions) + self._spare
            if self._count in self._fail_allocations or used + size > self.limit:
                raise NoRoom(f"no memory for {name}", f"{self.place} has {self.limit - used} bytes left")
            region = FakeRegion(self, size, self._count in self._fail_seals)
            self._regions.add(region)
        return region

    def lose(self) -> None:
        """The place has gone, as a GPU that fell off its bus."""
        self._lost = True

    def check(self) -> None:
        if self._lost:
            raise DeviceLost(f"{self.place} is lost", "it was chosen to fail")

    def set_spare(self, nbytes: int) -> int:
        with self._lock:
            self._spare = min(nbytes, self.limit - sum(r.nbytes for r in self._regions))
            return self._spare

    def statistics(self) -> DeviceStatistics:
        with self._lock:
            return DeviceStatistics(sum(r.nbytes for r in self._regions), self._spare, len(self._regions))

    def close(self) -> None:
        for region in list(self._regions):
            region.close()
        self._spare = 0

    def _closed(self, region: FakeRegion) -> None:
        with self._lock:
            self._regions.discard(region)
