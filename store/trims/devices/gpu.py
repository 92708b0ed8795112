"""A GPU as a place: regions are allocations of the driver that other processes import; no context is ever made here.

The manager holds handles and descriptors and nothing else: it never maps the memory, so a fault on the GPU cannot reach
it, and it takes none of the GPU's memory for itself. Who fills a region does so in a process of its own
(`trims.transfer.gpu_worker`), which imports the descriptors.

What a client needs on the host - the graph, the side files, the table - is the region's *tail*: a sealed memfd beside
the slabs, the first of its descriptors. A descriptor of GPU memory carries no rights: whoever imports it chooses their
access. So GPU memory is shared among those who trust each other (docs/gpu.md).
"""

from __future__ import annotations

import os
import threading

from trims.devices import slabs
from trims.devices.base import Device, DeviceStatistics, Region
from trims.devices.driver import Driver, Gpu
from trims.errors import NoRoom, TrimsError
from trims.linux import fdpass, memfd
from trims.places import gpu_place
from trims.units import format_size

MOST_SLABS = fdpass.MOST_FDS - 1


class GpuRegion(Region):
    """Slabs of one GPU, and the tail on the host once it is sealed.

    fds: a descriptor of each slab, owned by the region.
    """

    def __init__(self, device: GpuDevice, sizes: tuple[int, ...], handles: list[int], fds: list[int]) -> None:
        self.nbytes, self.slabs, self.fds = sum(sizes), sizes, fds
        self._device, self._handles = device, handles
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
        handles, self._handles = self._handles, []
        fds, self.fds = self.fds, []
        tail, self._tail = self._tail, -1
        fdpass.close_all([*fds, *([tail] if tail >= 0 else [])])
        self._device._closed(self, handles)


class GpuDevice(Device):
    """One GPU. Knows no budget: who allocates has planned. slab: bytes of a slab at most."""

    def __init__(self, driver: Driver, gpu: Gpu, slab: int = slabs.SLAB) -> None:
        self.driver, self.gpu, self._slab = driver, gpu, slab
        self.place = gpu_place(gpu.uuid)
        self._lock = threading.Lock()
        self._regions: set[GpuRegion] = set()
        self._nbytes = 0  # what there may be at most: counted before it is made, and until it is given up

    @property
    def nbytes(self) -> int:
        """Bytes of the GPU's memory that may be ours at this moment, those being made and given up included."""
        with self._lock:
            return self._nbytes

    def takes(self, span: int, table: int) -> int:
        return slabs.padded(span, self.gpu.granularity)

    def allocate(self, name: str, nbytes: int) -> GpuRegion:
        sizes = slabs.cut(nbytes, self.gpu.granularity, self._slab)
        if len(sizes) > MOST_SLABS:
            most = format_size(MOST_SLABS * self._slab)
            raise NoRoom(f"no region of {format_size(nbytes)} on {self.place}", f"one can have {most} at most")
        handles: list[int] = []
        fds: list[int] = []
        self._count(sum(sizes))
        try:
            for size in sizes:
                handles.append(self.driver.create(self.gpu.ordinal, size))
                fds.append(self.driver.export(handles[-1]))
        except BaseException:
            fdpass.close_all(fds)
            self._release(handles)
            self._count(-sum(sizes))
            raise
        region = GpuRegion(self, sizes, handles, fds)
        with self._lock:
            self._regions.add(region)
        return region

    def set_spare(self, nbytes: int) -> int:
        """None is kept ready: the driver has its own."""
        return 0

    def statistics(self) -> DeviceStatistics:
        with self._lock:
            return DeviceStatistics(sum(r.nbytes for r in self._regions), 0, len(self._regions))

    def close(self) -> None:
        with self._lock:
            regions = list(self._regions)
        for region in regions:
            region.close()

    def _closed(self, region: GpuRegion, handles: list[int]) -> None:
        self._release(handles)
        with self._lock:
            if region in self._regions:
                self._regions.discard(region)
                self._nbytes -= region.nbytes

    def _count(self, nbytes: int) -> None:
        with self._lock:
            self._nbytes += nbytes

    def _release(self, handles: list[int]) -> None:
        """Give handles up. A GPU that is lost has given them up already."""
        for handle in handles:
            try:
                self.driver.release(handle)
            except TrimsError:
                pass
