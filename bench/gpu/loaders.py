"""Getting weights onto GPU 0 as programs without trims do, and through it; and one pass over all of them there.

Ways: "safetensors" and "torch" are those libraries' own loaders; "copy" is a plain copy of the file's tensors by the
driver, from memory that is not page-locked. Computing is done by PyTorch where it can use the GPU, else by CuPy, else
(simulated GPUs) by copying back.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from bench.gpu.programs import on_gpu
from trims.devices import drivers
from trims.workload.functions.weights import load as read_file
from trims.workload.functions.weights import total as host_total

UNIT = 512  # bytes: what a tensor's place in one allocation is a multiple of


class Copied:
    """Tensors in one allocation of this process's own. Gone with it."""

    def __init__(self, arrays: Iterable[np.ndarray[Any, Any]]) -> None:
        driver = self._driver = drivers.find()
        self._arrays = list(arrays)
        offsets, end = [], 0
        for array in self._arrays:
            offsets.append(end)
            end += -(-array.nbytes // UNIT) * UNIT
        unit = driver.gpus()[0].granularity
        self.nbytes = max(1, -(-end // unit)) * unit
        driver.open(0)
        handle, self.address = driver.create(0, self.nbytes), driver.reserve(self.nbytes)
        driver.map(self.address, self.nbytes, handle)
        driver.release(handle)
        driver.allow(self.address, self.nbytes, 0, True)
        self._places = [(self.address + offset, array.shape, array.dtype) for offset, array in
                        zip(offsets, self._arrays, strict=True)]  # fmt: skip
        self._copy(True)
        self._arrays = []

    def _copy(self, into_gpu: bool) -> None:
        driver = self._driver
        stream = driver.stream(0)
        for (address, _, _), array in zip(self._places, self._arrays, strict=True):
            if array.nbytes and into_gpu:
                driver.copy_in(0, address, array.ctypes.data, array.nbytes, stream)
            elif array.nbytes:
                driver.copy_out(0, array.ctypes.data, address, array.nbytes, stream)
        driver.wait(0, stream)
        driver.end_stream(0, stream)

    def host(self) -> list[np.ndarray[Any, Any]]:
        """Copies in host memory."""
        self._arrays = [np.empty(shape, dtype) for _, shape, dtype in self._places]
        self._copy(False)
        found, self._arrays = self._arrays, []
        return found

    def __del__(self) -> None:
        self._driver.unmap(self.address, self.nbytes)
        self._driver.free(self.address, self.nbytes)
        self._driver.close(0)


@functools.cache
def engine() -> str:
    """What computes on the GPU here: "torch", "cupy" or "copy"."""
    driver = drivers.find()
    torch = on_gpu(driver, "torch")
    if torch is not None and torch.cuda.is_available():
        return "torch"
    return "cupy" if on_gpu(driver, "cupy") is not None else "copy"


def lacking(way: str) -> str:
    """Why a way of loading cannot be had here, or ""."""
    return "needs PyTorch with CUDA" if way in ("safetensors", "torch") and engine() != "torch" else ""


def load(way: str, path: str) -> Any:
    """The tensors of a file on GPU 0, all there when this returns."""
    if way == "copy":
        return Copied(read_file(path).values())
    if way == "cupy":
        import cupy

        made = [cupy.asarray(array) for array in read_file(path).values()]
        cupy.cuda.runtime.deviceSynchronize()
        return made
    import torch

    if way == "safetensors":
        from safetensors.torch import load_file

        tensors = load_file(path, device="cuda:0")
    else:
        tensors = torch.load(path, map_location="cuda:0", weights_only=True)
    torch.cuda.synchronize()
    return list(tensors.values())


def prepare() -> str:
    """Have what a warm process has: libraries loaded, a context, kernels; the name of what computes."""
    drivers.find().open(0)
    if engine() == "torch":
        import safetensors.torch
        import torch

        assert safetensors.torch
        total([torch.ones(1 << 16, device="cuda:0")])
    elif engine() == "cupy":
        import cupy

        total([cupy.ones(1 << 16)])
    return engine()


def total(tensors: Any) -> int:
    """One pass over every byte on the GPU: the sum of all 8-byte words and of the bytes that are left, modulo 2^64."""
    if isinstance(tensors, Copied):
        return host_total(tensors.host())
    found = 0
    if engine() == "torch":
        import torch

        parts = [part for tensor in tensors for part in _torch_sums(torch, tensor)]
        found = int(torch.stack(parts).sum()) if parts else 0
    elif engine() == "cupy":
        import cupy

        for array in tensors:
            flat = array.reshape(-1).view(cupy.uint8)
            words = len(flat) // 8 * 8
            found += int(flat[:words].view(cupy.uint64).sum()) + int(flat[words:].sum(dtype=cupy.uint64))
    else:
        found = host_total(array.get() for array in tensors)
    return found % (1 << 64)


def _torch_sums(torch: Any, tensor: Any) -> list[Any]:
    if not tensor.numel():
        return []
    flat = tensor.reshape(-1).view(torch.uint8)
    words = len(flat) // 8 * 8
    parts = [flat[:words].view(torch.int64).sum()] if words else []
    return parts + ([flat[words:].sum(dtype=torch.int64)] if words < len(flat) else [])


def request(side: str, ref: str, place: str, path: str, cold: bool) -> dict[str, Any]:
    """Get the weights and read every byte of them on the GPU; natively, or through trims. cold: not from page cache.

    seconds: until the result; ready: until the weights could be used; total: the same on both sides.
    """
    if side == "native" and cold:
        drop(path)
    begun = time.perf_counter()
    if side == "native":
        how, held, tensors = "native", None, load({"torch": "safetensors"}.get(engine(), engine()), path)
    else:
        import trims

        held = trims.open(ref, place=place, timeout=200.0)
        how = held.how
        tensors = held.torch() if engine() == "torch" else held.cupy() if engine() == "cupy" else held.tensors()
        tensors = list(tensors.values())
    ready = time.perf_counter()
    found = total(tensors)
    done = time.perf_counter()
    del tensors
    if held is not None:
        held.close()
    return {"seconds": done - begun, "ready": ready - begun, "total": found, "how": how}


def drop(path: str) -> None:
    """Take a file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
