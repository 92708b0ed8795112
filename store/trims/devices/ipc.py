"""A GPU as a place where its driver has no descriptors of memory: a region is one allocation, by legacy CUDA IPC.

A context has to own such memory, so a process that has one keeps it (`Owner`; `trims.transfer.gpu_keeper`), and its
memory is gone when it ends, however that comes. Whoever opens the handle can read and write.
"""

from __future__ import annotations

from typing import Protocol

from trims.devices.driver import Driver, Gpu
from trims.devices.on_gpu import GpuPlace, OnGpu
from trims.devices.slabs import padded

UNIT = 2 << 20
"""Bytes that a region is whole units of. A handle opens the whole block that its memory is part of, and smaller
allocations may share one: "it is recommended to only share allocations with a 2MiB aligned size" (CUDA C++ Programming
Guide, Interprocess Communication)."""


class Owner(Protocol):
    """The process that owns the memory of one GPU's regions. It is started when there is something to own."""

    def allocate(self, nbytes: int) -> tuple[int, bytes]:
        """(number, handle) of new memory; a number is never used twice. Raises NoRoom, DeviceLost, Cancelled."""

    def free(self, number: int) -> None:
        """Give memory up. Raises nothing: what a process that has ended owned is gone."""

    def owns(self, number: int) -> bool:
        """Whether that memory is still there."""


class IpcRegion(OnGpu):
    """One allocation of another process. ipc: its handle, hexadecimal."""

    def __init__(self, device: IpcDevice, nbytes: int, own: int, handle: bytes) -> None:
        super().__init__(device, (nbytes,), [])
        self.own, self.ipc = own, (handle.hex(),)
        self._owner = device.owner

    @property
    def lost(self) -> bool:
        return not self._owner.owns(self.own)

    def _give_up(self) -> None:
        self._owner.free(self.own)


class IpcDevice(GpuPlace):
    """One GPU whose memory is shared by legacy IPC."""

    crosses = False
    outlived = False

    def __init__(self, driver: Driver, gpu: Gpu, owner: Owner) -> None:
        super().__init__(driver, gpu)
        self.owner = owner

    def takes(self, span: int, table: int) -> int:
        return padded(span, max(UNIT, self.gpu.granularity))

    def _cut(self, nbytes: int) -> tuple[int, ...]:
        return (self.takes(nbytes, 0),)

    def _make(self, sizes: tuple[int, ...]) -> IpcRegion:
        return IpcRegion(self, sizes[0], *self.owner.allocate(sizes[0]))
