"""What regions on a GPU have in common, however their memory is given to others: the tail on the host, and the books.

What a client needs on the host - the graph, the side files, the table - is the region's *tail*: a sealed memfd beside
the GPU's memory, the first of its descriptors.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod

from trims.devices.base import Device, DeviceStatistics, Region
from trims.devices.driver import Driver, Gpu
from trims.errors import TrimsError
from trims.linux import memfd
from trims.places import gpu_place


class OnGpu(Region):
    """Memory of one GPU, and the tail on the host once it is sealed.

    fds: descriptors of its slabs, owned by the region; none where they are given otherwise. own: its number in the
    process that owns the memory, 0 where nobody does.
    """

    own = 0

    def __init__(self, device: GpuPlace, sizes: tuple[int, ...], fds: list[int]) -> None:
        self.nbytes, self.slabs, self.fds = sum(sizes), sizes, fds
        self._device = device
        self._tail = -1

    @property
    def place(self) -> str:
        return self._device.place

    @property
    def buffer(self) -> memoryview:
        raise RuntimeError("memory of a GPU is not mapped here")

    def keep_tail(self, data: bytes) -> None:
        """Have these bytes on the host. Raises NoRoom when there is no memory for them, OSError."""
        fd = memfd.create("trims-tail", memfd.pages(len(data)))
        try:
            os.pwrite(fd, data, 0)
            self._tail = memfd.seal(fd)
        finally:
            os.close(fd)

    def seal(self) -> None:
        """It is filled. That nobody writes any more is for those who import it to keep."""
        if self._tail < 0:
            raise RuntimeError("a region of a GPU needs its tail")

    def export(self) -> int:
        if self._tail < 0:
            raise RuntimeError("only a sealed region can be exported")
        return self._tail

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (self.export(), *self.fds)

    def close(self) -> None:
        tail, self._tail = self._tail, -1
        if tail >= 0:
            os.close(tail)
        self._give_up()
        self._device._closed(self)

    @abstractmethod
    def _give_up(self) -> None:
        """Give the GPU's memory up. More than once is once; raises nothing."""


class GpuPlace(Device):
    """One GPU, and what there is of ours on it. Knows no budget: who allocates has planned."""

    crosses = True
    """Whether another GPU's worker can read its regions, and fill others from there."""

    def __init__(self, driver: Driver, gpu: Gpu) -> None:
        self.driver, self.gpu = driver, gpu
        self.place = gpu_place(gpu.uuid)
        self._lock = threading.Lock()
        self._regions: set[OnGpu] = set()
        self._nbytes = 0  # what there may be at most: counted before it is made, and until it is given up

    @property
    def nbytes(self) -> int:
        """Bytes of the GPU's memory that may be ours at this moment, those being made and given up included."""
        with self._lock:
            return self._nbytes

    def allocate(self, name: str, nbytes: int) -> OnGpu:
        sizes = self._cut(nbytes)
        self._count(sum(sizes))
        try:
            region = self._make(sizes)
        except BaseException:
            self._count(-sum(sizes))
            raise
        with self._lock:
            self._regions.add(region)
        return region

    def set_spare(self, nbytes: int) -> int:
        """None is kept ready: the driver has its own."""
        return 0

    def statistics(self) -> DeviceStatistics:
        with self._lock:
            return DeviceStatistics(sum(r.nbytes for r in self._regions), 0, len(self._regions))

    def used(self) -> int | None:
        try:
            return self.driver.usage(self.gpu.uuid).used
        except TrimsError:
            return None

    def close(self) -> None:
        with self._lock:
            regions = list(self._regions)
        for region in regions:
            region.close()

    @abstractmethod
    def _cut(self, nbytes: int) -> tuple[int, ...]:
        """The sizes of the slabs of a region. Raises NoRoom when no region can be that large."""

    @abstractmethod
    def _make(self, sizes: tuple[int, ...]) -> OnGpu:
        """The memory of a region. Raises NoRoom, DeviceLost."""

    def _closed(self, region: OnGpu) -> None:
        with self._lock:
            if region in self._regions:
                self._regions.discard(region)
                self._nbytes -= region.nbytes

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self._nbytes += nbytes
