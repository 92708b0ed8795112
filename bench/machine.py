"""What the measurements ran on, and what this machine can do at best: a figure means little without its limit."""

from __future__ import annotations

import functools
import importlib.metadata
import mmap
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARIES = ["trims", "numpy", "h5py", "msgspec", "onnx", "onnxruntime", "torch", "safetensors", "typer"]


def describe() -> dict[str, Any]:
    """Processor, memory, kernel and versions; nothing that names the machine or its user."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            model = line.partition(":")[2].strip()
            break
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass  # absent: its rows are absent too
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": versions,
    }


@functools.cache
def limits() -> dict[str, float]:
    """memcpy and fresh memory in bytes a second of one core, sequential disk reads, and the start of a bare Python."""
    return {
        "memcpy": _memcpy(),
        "fresh_memory": _fresh(),
        "disk_read": _disk(),
        "python_start": python_start(),
    }


def _best(action: Any, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        action()
        times.append(time.perf_counter() - begun)
    return min(times)


def _memcpy(nbytes: int = 64 << 20) -> float:
    source, target = bytearray(os.urandom(1 << 20) * (nbytes >> 20)), bytearray(nbytes)

    def copy() -> None:
        target[:] = source

    return nbytes / _best(copy)


def _fresh(nbytes: int = 64 << 20) -> float:
    """How fast pages of a new memfd come: what a load into memory that nobody prepared waits for."""

    def fill() -> None:
        fd = os.memfd_create("fresh")
        os.posix_fallocate(fd, 0, nbytes)
        os.close(fd)

    return nbytes / _best(fill)


def _disk(nbytes: int = 256 << 20) -> float:
    (ROOT / "build").mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=ROOT / "build") as file:
        chunk = os.urandom(4 << 20)
        for _ in range(nbytes // len(chunk)):
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
        return nbytes / _best(lambda: read_direct(file.name), rounds=3)


def read_direct(path: str, piece: int = 16 << 20) -> int:
    """Read a whole file past the page cache where that works; the bytes read."""
    buffer = mmap.mmap(-1, piece)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:  # a file system without it, such as tmpfs
        fd = os.open(path, os.O_RDONLY)
    try:
        total = 0
        while n := os.preadv(fd, [buffer], total):
            total += n
        return total
    finally:
        os.close(fd)
        buffer.close()


def python_start(rounds: int = 10) -> float:
    """Median seconds of `python -c pass`."""
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
