"""The real driver, through cuda-bindings: each method is one call of the CUDA driver's interface, or a few.

A context is used only by the methods that need one, of the GPU they name: it is pushed for the call and popped after
it, so that what the calling thread had current stays so. Memory is of the virtual memory interface (cuMemCreate), with
handles that are POSIX descriptors; that of legacy IPC alone is a context's (cuMemAlloc).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cuda.bindings import driver as cu
from cuda.bindings.utils import get_cuda_native_handle

from trims.devices.cuda_errors import NO_DEVICE, failed, unloadable, unusable
from trims.devices.driver import Driver, Gpu, Usage
from trims.errors import DeviceLost

_OLDEST = 12000
"""The CUDA version, as the driver writes it, of the first that has cuGetProcAddress_v2: cuda-bindings need that."""
_FD = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
_DEVICE = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
_FLAGS = cu.CUmemAccess_flags
_ACCESS = {
    int(_FLAGS.CU_MEM_ACCESS_FLAGS_PROT_NONE): "",
    int(_FLAGS.CU_MEM_ACCESS_FLAGS_PROT_READ): "read",
    int(_FLAGS.CU_MEM_ACCESS_FLAGS_PROT_READWRITE): "write",
}
_ATTRIBUTE = cu.CUdevice_attribute
_MAPS = _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED
_GIVES_DESCRIPTORS = _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED
_READS_REGISTERED = _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED
# In cuda-bindings 12 the call without _v2 is an older one, which names the GPU that a MIG slice is part of.
_GET_UUID = "cuDeviceGetUuid_v2" if hasattr(cu, "cuDeviceGetUuid_v2") else "cuDeviceGetUuid"
_LAZY = int(cu.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)  # the only flag of cuIpcOpenMemHandle, and required
_USUAL = 2 << 20  # bytes: the granularity of a GPU that has no virtual memory interface to ask, and does not share


class CudaDriver(Driver):
    """The GPUs of this process. One object does for a process; it does not survive a fork."""

    def __init__(self) -> None:
        """Start the driver, without a context. Raises DeviceLost when there is none, or one too old."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._contexts: dict[int, tuple[Any, int]] = {}  # by ordinal: the context, and how often it was opened
        there = _start()
        self._devices = [self._call("cuDeviceGet", n) for n in range(self._call("cuDeviceGetCount") if there else 0)]
        self._gpus = tuple(self._describe(n) for n in range(len(self._devices)))

    # ---- without a context

    def gpus(self) -> tuple[Gpu, ...]:
        return self._gpus

    def usage(self, uuid: str) -> Usage:
        from trims.devices import nvml  # for those who watch: a client does not

        return nvml.usage(uuid)

    def notes(self, uuid: str) -> tuple[str, ...]:
        from trims.devices import nvml

        return nvml.notes(uuid)

    def create(self, ordinal: int, nbytes: int) -> int:
        return int(self._call("cuMemCreate", nbytes, self._properties(ordinal), 0))

    def export(self, handle: int) -> int:
        fd = int(self._call("cuMemExportToShareableHandle", handle, _FD, 0))
        os.set_inheritable(fd, False)
        return fd

    def import_(self, fd: int) -> int:
        return int(self._call("cuMemImportFromShareableHandle", fd, _FD))

    def release(self, handle: int) -> None:
        self._call("cuMemRelease", handle)

    # ---- addresses

    def reserve(self, nbytes: int) -> int:
        return int(self._call("cuMemAddressReserve", nbytes, 0, 0, 0))

    def map(self, address: int, nbytes: int, handle: int) -> None:
        self._call("cuMemMap", address, nbytes, 0, handle, 0)

    def allow(self, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        access = cu.CUmemAccessDesc()
        access.location = self._location(ordinal)
        access.flags = _FLAGS.CU_MEM_ACCESS_FLAGS_PROT_READWRITE if write else _FLAGS.CU_MEM_ACCESS_FLAGS_PROT_READ
        self._call("cuMemSetAccess", address, nbytes, [access], 1)

    def access(self, address: int, ordinal: int) -> str:
        return _ACCESS[int(self._call("cuMemGetAccess", self._location(ordinal), address))]

    def unmap(self, address: int, nbytes: int) -> None:
        self._call("cuMemUnmap", address, nbytes)

    def free(self, address: int, nbytes: int) -> None:
        self._call("cuMemAddressFree", address, nbytes)

    # ---- with a context

    def open(self, ordinal: int) -> None:
        device = self._device(ordinal)
        with self._lock:
            context, opens = self._contexts.get(ordinal, (None, 0))
            if not opens:
                context = self._call("cuDevicePrimaryCtxRetain", device)
            self._contexts[ordinal] = (context, opens + 1)

    def close(self, ordinal: int) -> None:
        with self._lock:
            context, opens = self._contexts.pop(ordinal, (None, 0))
            if opens > 1:
                self._contexts[ordinal] = (context, opens - 1)
                return
        if not opens:
            raise _not_open("close", ordinal)
        self._call("cuDevicePrimaryCtxRelease", self._device(ordinal))

    def synchronize(self, ordinal: int) -> None:
        self._within(ordinal, "cuCtxSynchronize")

    def pin(self, ordinal: int, nbytes: int) -> int:
        return int(self._within(ordinal, "cuMemHostAlloc", nbytes, 0))

    def unpin(self, ordinal: int, address: int) -> None:
        self._within(ordinal, "cuMemFreeHost", address)

    def register(self, ordinal: int, address: int, nbytes: int) -> None:
        self._device(ordinal)
        flags = cu.CU_MEMHOSTREGISTER_READ_ONLY if self._gpus[ordinal].reads_registered else 0
        self._within(ordinal, "cuMemHostRegister", address, nbytes, flags)

    def unregister(self, ordinal: int, address: int) -> None:
        self._within(ordinal, "cuMemHostUnregister", address)

    def stream(self, ordinal: int) -> int:
        made = self._within(ordinal, "cuStreamCreate", int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
        return int(get_cuda_native_handle(made))

    def end_stream(self, ordinal: int, stream: int) -> None:
        self.wait(ordinal, stream)
        self._within(ordinal, "cuStreamDestroy", cu.CUstream(stream))

    def copy_in(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._within(ordinal, "cuMemcpyHtoDAsync", to, source, nbytes, cu.CUstream(stream))

    def copy_out(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._within(ordinal, "cuMemcpyDtoHAsync", to, source, nbytes, cu.CUstream(stream))

    def copy_across(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._within(ordinal, "cuMemcpyDtoDAsync", to, source, nbytes, cu.CUstream(stream))

    def reaches(self, ordinal: int, other: int) -> bool:
        return bool(self._call("cuDeviceCanAccessPeer", self._device(ordinal), self._device(other)))

    def wait(self, ordinal: int, stream: int) -> None:
        self._within(ordinal, "cuStreamSynchronize", cu.CUstream(stream))

    # ---- legacy IPC

    def allocate(self, ordinal: int, nbytes: int) -> int:
        return int(self._within(ordinal, "cuMemAlloc", nbytes))

    def free_allocation(self, ordinal: int, address: int) -> None:
        self._within(ordinal, "cuMemFree", address)

    def ipc_handle(self, ordinal: int, address: int) -> bytes:
        return ctypes.string_at(self._within(ordinal, "cuIpcGetMemHandle", address).getPtr(), cu.CU_IPC_HANDLE_SIZE)

    def ipc_open(self, ordinal: int, handle: bytes) -> int:
        if len(handle) != cu.CU_IPC_HANDLE_SIZE:
            raise DeviceLost("memory of a GPU cannot be opened", f"a handle has {cu.CU_IPC_HANDLE_SIZE} bytes")
        given = cu.CUipcMemHandle()
        ctypes.memmove(given.getPtr(), handle, cu.CU_IPC_HANDLE_SIZE)  # not every version of the bindings names a field
        return int(self._within(ordinal, "cuIpcOpenMemHandle", given, _LAZY))

    def ipc_close(self, ordinal: int, address: int) -> None:
        self._within(ordinal, "cuIpcCloseMemHandle", address)

    # ----

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a call of the driver answers. Raises NoRoom, DeviceLost."""
        if os.getpid() != self._pid:
            raise DeviceLost(
                "CUDA cannot be used in a forked child", f"process {self._pid} started it", "start processes by spawn"
            )
        return _ask(name, *arguments)

    def _within(self, ordinal: int, name: str, *arguments: Any) -> Any:
        """`_call` with the context of a GPU, which must be open."""
        with self._current(name, ordinal):
            return self._call(name, *arguments)

    @contextmanager
    def _current(self, name: str, ordinal: int) -> Iterator[None]:
        context, opens = self._contexts.get(ordinal, (None, 0))
        if not opens:
            raise _not_open(name, ordinal)
        self._call("cuCtxPushCurrent", context)
        try:
            yield
        except BaseException:
            cu.cuCtxPopCurrent()  # after a fault it reports that fault again
            raise
        self._call("cuCtxPopCurrent")

    def _device(self, ordinal: int) -> Any:
        if not 0 <= ordinal < len(self._devices):
            raise DeviceLost(f"no GPU {ordinal}", f"this process sees {len(self._devices)}", "try nvidia-smi -L")
        return self._devices[ordinal]

    def _location(self, ordinal: int) -> Any:
        self._device(ordinal)
        location = cu.CUmemLocation()
        location.type = _DEVICE
        location.id = ordinal
        return location

    def _properties(self, ordinal: int) -> Any:
        """Of allocations on a GPU that other processes may import."""
        properties = cu.CUmemAllocationProp()
        properties.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        properties.location = self._location(ordinal)
        properties.requestedHandleTypes = _FD
        return properties

    def _describe(self, ordinal: int) -> Gpu:
        device = self._devices[ordinal]
        maps, gives, reads = (
            bool(self._call("cuDeviceGetAttribute", attribute, device))
            for attribute in (_MAPS, _GIVES_DESCRIPTORS, _READS_REGISTERED)
        )
        name = bytes(self._call("cuDeviceGetName", 256, device)).partition(b"\0")[0].decode(errors="replace")
        smallest = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        shares = maps and gives
        return Gpu(
            ordinal,
            _uuid(self._call(_GET_UUID, device), name),
            name,
            int(self._call("cuDeviceTotalMem", device)),
            int(self._call("cuMemGetAllocationGranularity", self._properties(ordinal), smallest)) if shares else _USUAL,
            shares,
            reads,
        )


def _uuid(uuid: Any, name: str) -> str:
    """A UUID as nvidia-smi writes it. The driver has no other mark of a MIG slice than its name: `... MIG 1g.10gb`."""
    digits = bytes(uuid.bytes).hex()
    parts = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return ("MIG-" if " MIG " in name else "GPU-") + "-".join(parts)


def _start() -> bool:
    """cuInit; False when there is no GPU. Raises DeviceLost when there is no driver, or one too old."""
    try:
        error = cu.cuInit(0)[0]
        version = int(cu.cuDriverGetVersion()[1])
    except Exception as reason:  # whatever each version of cuda-bindings raises without libcuda.so.1, or in a new one
        raise unusable(unloadable() or str(reason)) from None
    if version < _OLDEST:
        raise unusable(
            f"it is of CUDA {version // 1000}.{version % 1000 // 10}", f"update it to {_OLDEST // 1000}.0 or later"
        )
    if int(error) not in (0, NO_DEVICE):
        raise failed("cuInit", int(error), error.name)
    return int(error) == 0


def _ask(name: str, *arguments: Any) -> Any:
    try:
        error, *answer = getattr(cu, name)(*arguments)
    except (RuntimeError, ValueError, LookupError) as reason:  # a driver without the call, or an error without a name
        raise unusable(f"{name}: {reason}", "is it older than cuda-bindings? try nvidia-smi") from None
    if int(error):
        raise failed(name, int(error), error.name)
    return answer[0] if answer else None


def _not_open(name: str, ordinal: int) -> DeviceLost:
    return DeviceLost(f"{name} needs a context", f"GPU {ordinal} is not open", "this is a mistake of the caller's")
