"""The management library, through nvidia-ml-py: what a GPU's memory is used for by all, and what is unusual about it.

It needs no context. It is opened once, when first asked, and stays open.
"""

from __future__ import annotations

import threading
from typing import Any

import pynvml

from trims.devices.driver import Usage
from trims.errors import DeviceLost

_SERVER = "nvidia-cuda-mps"
"""How the name of an MPS server begins; the kernel keeps 15 characters of it."""
_lock = threading.Lock()
_opened = False


def usage(uuid: str) -> Usage:
    """The memory of a GPU, or of a MIG slice, by its UUID. Raises DeviceLost when it cannot be measured."""
    memory = _ask("nvmlDeviceGetMemoryInfo", _handle(uuid))
    return Usage(int(memory.total), int(memory.used))


def notes(uuid: str) -> tuple[str, ...]:
    """What an operator should know of a GPU, a line each; nothing of what it cannot tell. Raises DeviceLost."""
    handle = _handle(uuid)
    found = [_mig(uuid, handle), _mode(handle), _mps(handle)]
    return tuple(line for line in found if line)


def _handle(uuid: str) -> Any:
    global _opened
    with _lock:
        if not _opened:
            _ask("nvmlInit")
            _opened = True
    return _ask("nvmlDeviceGetHandleByUUID", uuid.encode())


def _ask(name: str, *arguments: Any) -> Any:
    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError as error:
        hint = "see nvidia-smi"
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            hint = "in a container, NVIDIA_DRIVER_CAPABILITIES must have utility"
        raise DeviceLost("the GPU's memory cannot be watched", f"{name}: {error}", hint) from None


def _maybe(name: str, *arguments: Any) -> Any:
    """What the library answers; None when this GPU, driver or user does not get an answer."""
    try:
        return getattr(pynvml, name)(*arguments)
    except pynvml.NVMLError:
        return None


def _mig(uuid: str, handle: Any) -> str:
    if uuid.startswith("MIG-"):
        whole = _maybe("nvmlDeviceGetDeviceHandleFromMigDeviceHandle", handle)
        name = _maybe("nvmlDeviceGetUUID", whole) if whole is not None else None
        return f"a MIG slice of {name or 'a GPU'}: memory is not shared between slices"
    mode = _maybe("nvmlDeviceGetMigMode", handle)
    if mode is not None and mode[0]:
        return "MIG is on: programs see its slices, each a place of its own, and not the whole GPU"
    return ""


def _mode(handle: Any) -> str:
    mode = _maybe("nvmlDeviceGetComputeMode", handle)
    if mode == pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS:
        return "its compute mode lets one process in at a time, so no clients beside a worker (nvidia-smi -c 0)"
    if mode == pynvml.NVML_COMPUTEMODE_PROHIBITED:
        return "its compute mode lets no process in (nvidia-smi -c 0)"
    return ""


def _mps(handle: Any) -> str:
    clients = _maybe("nvmlDeviceGetMPSComputeRunningProcesses", handle) or ()
    running = _maybe("nvmlDeviceGetComputeRunningProcesses", handle) or ()
    servers = [process.pid for process in running if _command(process.pid).startswith(_SERVER)]
    if not clients and not servers:
        return ""
    who = f"by MPS server {servers[0]}" if servers else "by MPS"
    return f"shared {who}: a fault of one client can end the others"


def _command(pid: int) -> str:
    """The name of a process, or "" when it is in another namespace or has ended."""
    try:
        with open(f"/proc/{pid}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""
