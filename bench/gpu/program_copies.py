"""How fast this GPU takes bytes, and how long the calls of an attach take: the limits that figures are held to.

For peers, as bench.gpu.programs.
"""

from __future__ import annotations

import ctypes
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.gpu import programs
from trims.devices.driver import Driver
from trims.errors import TrimsError

Rates = list[float]
"""Bytes a second, one a copy."""


def _memory(driver: Driver, nbytes: int) -> int:
    """The address of new memory of the GPU; it stays."""
    handle, address = driver.create(0, nbytes), driver.reserve(nbytes)
    driver.map(address, nbytes, handle)
    driver.allow(address, nbytes, 0, True)
    driver.open(0)
    return address


def _rates(driver: Driver, nbytes: int, times: int, copy: Callable[[int], None]) -> Rates:
    """Copies of so many bytes on one stream, each waited for; the first is not counted."""
    stream = driver.stream(0)
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        copy(stream)
        driver.wait(0, stream)
        found.append(nbytes / (time.perf_counter() - begun))
    driver.end_stream(0, stream)
    return found[1:]


def rates(driver: Driver, sizes: list[int], times: int) -> dict[str, dict[str, Any]]:
    """Size in bytes, as text -> kind of host memory -> rates; and "registering": bytes a second, or why not."""
    most = max(sizes)
    there = _memory(driver, most)
    pinned = driver.pin(0, most)
    ctypes.memset(pinned, 7, most)
    pageable = np.full(most, 7, np.uint8)
    sealed = programs.sealed(driver, most)
    seconds, error = programs.register(driver, sealed, most)
    sources = {"pinned": pinned, "pageable": pageable.ctypes.data} | ({} if error else {"registered": sealed})
    found: dict[str, dict[str, Any]] = {}
    for size in sizes:

        def to_gpu(source: int, stream: int, size: int = size) -> None:
            driver.copy_in(0, there, source, size, stream)

        def to_host(stream: int, size: int = size) -> None:
            driver.copy_out(0, pinned, there, size, stream)

        found[str(size)] = {
            kind: _rates(driver, size, times, functools.partial(to_gpu, source)) for kind, source in sources.items()
        }
        found[str(size)]["to the host, pinned"] = _rates(driver, size, times, to_host)
    found["registering"] = {"rate": most / seconds, "error": error}
    return found


def peak(driver: Driver, nbytes: int, times: int) -> Rates:
    """Of pinned memory alone."""
    there, pinned = _memory(driver, nbytes), driver.pin(0, nbytes)
    ctypes.memset(pinned, 7, nbytes)
    return _rates(driver, nbytes, times, lambda stream: driver.copy_in(0, there, pinned, nbytes, stream))


def calls(driver: Driver, nbytes: int, times: int) -> dict[str, list[float]]:
    """Seconds of each call about one allocation of so many bytes, in the order of an attach."""
    driver.open(0)
    found: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        begun = time.perf_counter()
        answer = call(*arguments)
        found.setdefault(name, []).append(time.perf_counter() - begun)
        return answer

    for _ in range(times):
        handle = timed("create", driver.create, 0, nbytes)
        fd = timed("export", driver.export, handle)
        address = timed("reserve", driver.reserve, nbytes)
        taken = timed("import", driver.import_, fd)
        timed("map", driver.map, address, nbytes, taken)
        timed("allow", driver.allow, address, nbytes, 0, False)
        timed("access", driver.access, address, 0)
        timed("unmap", driver.unmap, address, nbytes)
        timed("free", driver.free, address, nbytes)
        timed("release", driver.release, taken)
        driver.release(handle)
        os.close(fd)
    return found


def context(driver: Driver) -> float:
    """Seconds until this process, which has done nothing on a GPU yet, has a context."""
    begun = time.perf_counter()
    driver.open(0)
    return time.perf_counter() - begun


def room(driver: Driver, nbytes: int) -> bool:
    """Whether so much memory of the GPU can be had now."""
    try:
        driver.release(driver.create(0, nbytes))
    except TrimsError:
        return False
    return True
