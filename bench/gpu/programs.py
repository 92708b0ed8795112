"""What peers are told to do with their driver beside its own calls: fill memory, look at it, try to write to it.

Each function gets the driver of its process, on GPU 0. What a framework lacks is answered as {"skipped": why}.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import os
import time
from typing import Any

import numpy as np

from trims.client import capsules
from trims.devices.driver import Driver
from trims.errors import TrimsError
from trims.linux import memfd

PIECE = 4 << 20
_kept: list[Any] = []  # what has to live as long as the process


def _copy(driver: Driver, address: int, host: int, nbytes: int, into_gpu: bool) -> None:
    stream = driver.stream(0)
    try:
        copy = driver.copy_in if into_gpu else driver.copy_out
        copy(0, *((address, host) if into_gpu else (host, address)), nbytes, stream)
        driver.wait(0, stream)
    finally:
        driver.end_stream(0, stream)


def fill(driver: Driver, address: int, nbytes: int, seed: int) -> str:
    """Write random bytes; their digest."""
    rng, digest = np.random.default_rng(seed), hashlib.blake2b(digest_size=8)
    for at in range(0, nbytes, PIECE):
        data = rng.integers(0, 256, min(PIECE, nbytes - at), dtype=np.uint8)
        digest.update(data)
        _copy(driver, address + at, data.ctypes.data, len(data), True)
    return digest.hexdigest()


def fill_halves(driver: Driver, address: int, nbytes: int) -> None:
    """Write 0.5, as float32."""
    data = np.full(PIECE // 4, 0.5, np.float32)
    for at in range(0, nbytes, PIECE):
        _copy(driver, address + at, data.ctypes.data, min(PIECE, nbytes - at), True)


def digest(driver: Driver, address: int, nbytes: int) -> str:
    """Of what lies there now."""
    found, data = hashlib.blake2b(digest_size=8), np.empty(PIECE, np.uint8)
    for at in range(0, nbytes, PIECE):
        size = min(PIECE, nbytes - at)
        data[:] = 0
        _copy(driver, address + at, data.ctypes.data, size, False)
        found.update(data[:size])
    return found.hexdigest()


def write_by_copy(driver: Driver, address: int, nbytes: int) -> dict[str, Any]:
    """Copy zeros there: how it failed, and whether the process can still use the GPU."""
    zeros = np.zeros(PIECE, np.uint8)
    return _fails(driver, lambda: _copy(driver, address, zeros.ctypes.data, len(zeros), True))


def write_by_kernel(driver: Driver, address: int, nbytes: int) -> dict[str, Any]:
    """Have a kernel of PyTorch or CuPy write there: the same."""
    torch, cupy = on_gpu(driver, "torch"), on_gpu(driver, "cupy")
    if torch is not None and torch.cuda.is_available():
        tensor = torch.from_dlpack(capsules.of_memory(address, (nbytes,), np.dtype(np.uint8), (2, 0), None, False))

        def write() -> None:
            tensor.add_(1)
            torch.cuda.synchronize()

        return _fails(driver, write) | {"by": f"torch {torch.__version__}"}
    if cupy is not None:
        memory = cupy.cuda.UnownedMemory(address, nbytes, None, 0)
        array = cupy.ndarray((nbytes,), cupy.uint8, cupy.cuda.MemoryPointer(memory, 0))

        def add() -> None:
            cupy.add(array, 1, out=array)
            cupy.cuda.runtime.deviceSynchronize()

        return _fails(driver, add) | {"by": f"cupy {cupy.__version__}"}
    return {"skipped": "needs PyTorch with CUDA, or CuPy, for a kernel"}


def _fails(driver: Driver, write: Any) -> dict[str, Any]:
    error = lost = ""
    try:
        write()
    except Exception as reason:  # each library has its own
        error = f"{type(reason).__name__}: {reason}".partition("\n")[0]
    try:
        driver.synchronize(0)
    except Exception as reason:
        lost = str(reason)
    return {"error": error, "context_afterwards": lost or "usable"}


def sealed(driver: Driver, nbytes: int) -> int:
    """The address of a sealed memfd of random bytes, mapped read-only: as the manager's host regions are."""
    fd = memfd.create("gpu-check", nbytes)
    data = np.random.default_rng(2).integers(0, 256, PIECE, dtype=np.uint8).tobytes()
    for at in range(0, nbytes, PIECE):
        os.pwrite(fd, data[: min(PIECE, nbytes - at)], at)
    reading = memfd.seal(fd)
    os.close(fd)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
    address = libc.mmap(None, nbytes, 1, 1, reading, 0)  # PROT_READ, MAP_SHARED
    os.close(reading)
    assert address not in (None, ctypes.c_void_p(-1).value), "mmap failed"
    return int(address)


def register(driver: Driver, host: int, nbytes: int) -> tuple[float, str]:
    """Register host memory: the seconds that took, and why it failed or ""."""
    begun = time.perf_counter()
    try:
        driver.register(0, host, nbytes)
    except TrimsError as error:
        return time.perf_counter() - begun, str(error)
    return time.perf_counter() - begun, ""


def copied(driver: Driver, host: int, address: int, nbytes: int) -> bool:
    """Copy host memory to the GPU at once, and say whether its bytes are there."""
    _copy(driver, address, host, nbytes, True)
    found = hashlib.blake2b(digest_size=8)
    for at in range(0, nbytes, PIECE):
        found.update(ctypes.string_at(host + at, min(PIECE, nbytes - at)))
    return found.hexdigest() == digest(driver, address, nbytes)


def open_ipc(driver: Driver, handle: bytes) -> float:
    """Seconds to open a handle of legacy IPC, in a process that has a context."""
    driver.open(0)
    begun = time.perf_counter()
    driver.ipc_open(0, handle)
    return time.perf_counter() - begun


def held_by(driver: Driver, uuid: str) -> dict[str, Any]:
    """How many processes the management library sees with a context on a GPU; None where it cannot tell."""
    if driver.simulated:
        return {"processes": None}
    import pynvml

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid.encode())
        return {"processes": len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle))}
    except pynvml.NVMLError:
        return {"processes": None}


def total(driver: Driver, address: int, nbytes: int) -> int:
    """The sum of the 8-byte words there, modulo 2^64."""
    found, data = np.uint64(0), np.empty(PIECE // 8, np.uint64)
    with np.errstate(over="ignore"):
        for at in range(0, nbytes, PIECE):
            size = min(PIECE, nbytes - at)
            _copy(driver, address + at, data.ctypes.data, size, False)
            found += np.add.reduce(data[: size // 8])
    return int(found)


def on_gpu(driver: Driver, name: str) -> Any:
    """A framework, or None when it is not there or knows nothing of this driver's GPUs."""
    return None if driver.simulated else module(name)


def module(name: str) -> Any:
    """A library, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
