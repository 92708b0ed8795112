"""What the device is: name, driver, CUDA, memory, what is unusual; the machine and its libraries. In JSON on stdout.

A process of its own, so that whoever asks has no driver. Ends with 23 and one line when there is no GPU.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

from bench import machine
from bench.gpu import wheels
from trims.devices import drivers
from trims.errors import DeviceLost, TrimsError

LIBRARIES = (
    "cuda-bindings", "nvidia-ml-py", "cupy-cuda12x", "cupy-cuda13x", "jax", "onnxruntime-gpu", "blake3", "msgspec",
    "zstandard",
)  # fmt: skip


def find() -> dict[str, Any]:
    """{"device", "machine"}: of the first GPU that this process sees. Raises DeviceLost."""
    driver = drivers.find()
    if not driver.gpus():
        raise DeviceLost("no GPU", "the driver shows none", "see nvidia-smi and CUDA_VISIBLE_DEVICES")
    gpu, count = driver.gpus()[0], len(driver.gpus())
    usage = driver.usage(gpu.uuid)
    device = {
        "name": gpu.name, "uuid": gpu.uuid, "nbytes": usage.total, "used": usage.used, "visible": count,
        "granularity": gpu.granularity, "shares": gpu.shares, "reads_registered": gpu.reads_registered,
        "simulated": driver.simulated, "notes": list(driver.notes(gpu.uuid)),
        **({} if driver.simulated else _versions()),
    }  # fmt: skip
    known = machine.describe()
    known["libraries"] |= {name: version for name in LIBRARIES if (version := _version(name))}
    known["from_wheels"] = _carried()
    return {"device": device, "machine": known}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _versions() -> dict[str, str]:
    """Of the kernel's driver, and the CUDA that it speaks."""
    import pynvml

    try:
        pynvml.nvmlInit()
        version = pynvml.nvmlSystemGetDriverVersion()
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
    except (pynvml.NVMLError, AttributeError):  # a library without these calls
        return {"driver": "unknown", "cuda": "unknown"}
    text = version.decode() if isinstance(version, bytes) else str(version)
    return {"driver": text, "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}"}


def _carried() -> list[str]:
    """The libraries that came as wheels, where bench.gpu.wheels made this environment."""
    path = Path(sys.prefix, wheels.LIST)
    used = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [one["name"] for one in used if one["where"] == "wheels"]


def main() -> int:
    try:
        print(json.dumps(find()))
    except TrimsError as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
