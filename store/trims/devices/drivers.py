"""Which driver this process uses: the real one, or simulated GPUs where TRIMS_SIMULATED_GPUS names their directory."""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Mapping

from trims.devices.driver import Driver
from trims.errors import DeviceLost

SIMULATED = "TRIMS_SIMULATED_GPUS"
"""The environment variable with a directory that `trims.devices.simulated.make` made."""

_found: dict[tuple[str, str | None], Driver] = {}
_lock = threading.Lock()


def find(environ: Mapping[str, str] = os.environ) -> Driver:
    """The driver of this process, one object however often it is asked for; after a fork still the parent's.

    Raises DeviceLost when there is none: no cuda-bindings, no NVIDIA driver, one too old, no such directory. That it
    is there does not mean that it has GPUs, nor that it works: CUDA does not survive a fork, and its calls then say so.
    """
    directory = environ.get(SIMULATED, "")
    visible = environ.get("CUDA_VISIBLE_DEVICES") if directory else None  # the real driver reads its own, once
    with _lock:
        found = _found.get((directory, visible))
        if found is None:
            found = _found[directory, visible] = _simulated(directory, visible) if directory else _real()
    return found


def _simulated(directory: str, visible: str | None) -> Driver:
    from trims.devices.simulated import SimulatedDriver

    return SimulatedDriver(directory, visible)


def _real() -> Driver:
    try:
        if importlib.util.find_spec("pynvml") is None:  # imported by those who watch alone, and then it is to be there
            raise ImportError("pynvml is not installed")
        from trims.devices.cuda import CudaDriver
    except ImportError as error:
        raise DeviceLost("no GPU can be used", f"{error}", "pip install 'trims[cuda]'") from None
    return CudaDriver()
