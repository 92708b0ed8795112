"""The stub of the CUDA driver's libraries (stubcuda.c), and the environment of a process that uses it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TOTAL = 256 << 20
"""Bytes of each GPU of the stub."""


def build(directory: Path) -> Path:
    """Compile the libraries into a directory, for LD_LIBRARY_PATH; skips where nothing can compile them."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("the stub of the CUDA driver needs a C compiler")
    library = directory / "libcuda.so.1"
    source = Path(__file__).with_suffix(".c")
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-pthread"]
    made = subprocess.run([compiler, *flags, "-o", library, source], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    (directory / "libnvidia-ml.so.1").symlink_to(library)
    return directory


def environment(libraries: Path, memory: Path, gpus: int = 2, **switches: str) -> dict[str, str]:
    """For a process that uses the stub, with the memory of its GPUs in the directory `memory`."""
    for n in range(gpus):
        (memory / str(n)).mkdir(parents=True, exist_ok=True)
    return {"LD_LIBRARY_PATH": str(libraries), "STUBCUDA_DIR": str(memory), "STUBCUDA_GPUS": str(gpus), **switches}
