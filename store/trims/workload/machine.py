"""What a measurement ran on: a figure means little without it. Nothing here names the machine or its user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from trims.linux import process

_LIBRARIES = ("numpy", "onnxruntime", "torch", "safetensors", "h5py")


def describe(directory: str = "/") -> dict[str, Any]:
    """cpu, cores, memory (bytes this process may use), kernel, disk (the file system of `directory`), versions."""
    from trims.version import __version__

    versions = {"trims": __version__, "python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass  # absent: no function of it can have run
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": process.memory_limit(),
        "kernel": f"{sys.platform} {platform.release()}",
        "disk": file_system(directory),
        "versions": versions,
    }


def file_system(directory: str) -> str:
    """The type of the file system that holds `directory`, as ext4; "" when it cannot be told."""
    found, longest = "", -1
    here = os.path.realpath(directory)
    try:
        with open("/proc/self/mounts", errors="surrogateescape") as file:
            for line in file:
                _, mount, kind = line.split(" ")[:3]
                inside = here == mount or here.startswith(mount.rstrip("/") + "/")
                if inside and len(mount) >= longest:
                    found, longest = kind, len(mount)
    except (OSError, ValueError):
        return ""
    return found


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith(("model name", "Model")):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine() or "unknown"
