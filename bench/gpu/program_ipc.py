"""Legacy CUDA IPC, by the driver's own calls: what may be opened, by whom, how often, and what comes with it.

For peers, as bench.gpu.programs. trims itself makes these calls nowhere else; a driver without them is skipped.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

from bench.gpu.programs import module
from trims.devices.driver import Driver

_LAZY = 1  # CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS <cuda.h>


def allocate(driver: Driver, nbytes: int, count: int) -> dict[str, Any]:
    """`count` allocations by cuMemAlloc, each filled with its number + 1: their addresses, handles and whole blocks."""
    try:
        _current(driver)
        found = []
        for n in range(count):
            address = int(_call("cuMemAlloc", nbytes))
            _call("cuMemsetD8", address, n + 1, nbytes)
            base, size = _call("cuMemGetAddressRange", address)
            handle = bytes(_call("cuIpcGetMemHandle", address).reserved)
            found.append({"address": address, "handle": list(handle), "base": int(base), "block": int(size)})
    except _Missing as missing:
        return {"skipped": str(missing)}
    return {"allocations": found}


def open_(driver: Driver, handle: list[int], look: int, count: int) -> dict[str, Any]:
    """Open one handle `count` times, write through it once: addresses, errors, seconds; and the byte at `look`."""
    try:
        _current(driver)
        addresses, errors, begun = [], [], time.perf_counter()
        for _ in range(count):
            try:
                addresses.append(int(_call("cuIpcOpenMemHandle", _handle(handle), _LAZY)))
            except RuntimeError as error:
                errors.append(str(error))
        seconds = time.perf_counter() - begun
        found: dict[str, Any] = {"addresses": addresses, "errors": errors, "seconds": seconds}
        if addresses:
            byte = (ctypes.c_uint8 * 1)()
            found["byte"] = _try(lambda: _call("cuMemcpyDtoH", ctypes.addressof(byte), addresses[0] + look, 1))
            found["seen"] = byte[0]
            found["write"] = _try(lambda: _call("cuMemsetD8", addresses[0], 77, 1))
        return found
    except _Missing as missing:
        return {"skipped": str(missing)}


def peek(driver: Driver, address: int) -> int:
    """The byte there."""
    byte = (ctypes.c_uint8 * 1)()
    _call("cuMemcpyDtoH", ctypes.addressof(byte), address, 1)
    return int(byte[0])


class _Missing(Exception):
    """The driver has no such call."""


def _current(driver: Driver) -> None:
    """Make the primary context current in this thread, for good: this process does nothing else."""
    if driver.simulated:
        raise _Missing("simulated GPUs have no legacy IPC of the driver's own")
    driver.open(0)
    _call("cuCtxSetCurrent", _call("cuDevicePrimaryCtxRetain", _call("cuDeviceGet", 0)))


def _call(name: str, *arguments: Any) -> Any:
    cu = module("cuda.bindings.driver")
    try:
        error, *answer = getattr(cu, name)(*arguments)
    except (AttributeError, RuntimeError) as reason:
        raise _Missing(f"this driver has no {name}: {reason}") from None
    if int(error):
        raise RuntimeError(f"{name}: {error.name}")
    return tuple(answer) if len(answer) > 1 else answer[0] if answer else None


def _handle(reserved: list[int]) -> Any:
    made = module("cuda.bindings.driver").CUipcMemHandle()
    made.reserved = bytes(reserved)
    return made


def _try(call: Any) -> str:
    try:
        call()
    except RuntimeError as error:
        return str(error)
    return "done"
