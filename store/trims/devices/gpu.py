"""A GPU as a place: regions are allocations of the driver that other processes import; no context is ever made here.

The manager holds handles and descriptors and nothing else: it never maps the memory, so a fault on the GPU cannot reach
it, and it takes none of the GPU's memory for itself. Who fills a region does so in a process of its own
(`trims.transfer.gpu_worker`), which imports the descriptors.

A descriptor of GPU memory carries no rights: whoever imports it chooses their access. So GPU memory is shared among
those who trust each other (docs/gpu.md).
"""

from __future__ import annotations

from trims.devices import slabs
from trims.devices.driver import Driver, Gpu
from trims.devices.on_gpu import GpuPlace, OnGpu
from trims.errors import NoRoom, TrimsError
from trims.linux import fdpass
from trims.units import format_size

MOST_SLABS = fdpass.MOST_FDS - 1


class GpuRegion(OnGpu):
    """Slabs of one GPU, each with a descriptor."""

    def __init__(self, device: GpuDevice, sizes: tuple[int, ...], handles: list[int], fds: list[int]) -> None:
        super().__init__(device, sizes, fds)
        self._driver, self._handles = device.driver, handles

    def _give_up(self) -> None:
        handles, self._handles = self._handles, []
        fds, self.fds = self.fds, []
        fdpass.close_all(fds)
        release(self._driver, handles)


class GpuDevice(GpuPlace):
    """One GPU whose memory is shared by descriptors. slab: bytes of a slab at most."""

    def __init__(self, driver: Driver, gpu: Gpu, slab: int = slabs.SLAB) -> None:
        super().__init__(driver, gpu)
        self._slab = slab

    def takes(self, span: int, table: int) -> int:
        return slabs.padded(span, self.gpu.granularity)

    def _cut(self, nbytes: int) -> tuple[int, ...]:
        sizes = slabs.cut(nbytes, self.gpu.granularity, self._slab)
        if len(sizes) > MOST_SLABS:
            most = format_size(MOST_SLABS * self._slab)
            raise NoRoom(f"no region of {format_size(nbytes)} on {self.place}", f"one can have {most} at most")
        return sizes

    def _make(self, sizes: tuple[int, ...]) -> GpuRegion:
        handles: list[int] = []
        fds: list[int] = []
        try:
            for size in sizes:
                handles.append(self.driver.create(self.gpu.ordinal, size))
                fds.append(self.driver.export(handles[-1]))
        except BaseException:
            fdpass.close_all(fds)
            release(self.driver, handles)
            raise
        return GpuRegion(self, sizes, handles, fds)


def release(driver: Driver, handles: list[int]) -> None:
    """Give handles up. A GPU that is lost has given them up already."""
    for handle in handles:
        try:
            driver.release(handle)
        except TrimsError:
            pass
