"""Which GPU a person means. `gpu:1` is the second that their own process sees; another process may see another there.

So numbers are resolved here, in the process that was told them, and everything that leaves it names a GPU by UUID.
Loaded only where a place of a GPU is named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

from trims.devices import drivers
from trims.devices.driver import Driver, Gpu
from trims.errors import DeviceLost, UsageError
from trims.places import GPU, gpu_number, gpu_of, gpu_place, is_called

_HINT = "see `nvidia-smi -L`, and CUDA_VISIBLE_DEVICES"


def resolve(place: str, environ: Mapping[str, str] = os.environ) -> str:
    """The place to tell a manager: what is not a certain GPU as it is, else `gpu:<UUID>`.

    A number is one in this process's own view (CUDA_VISIBLE_DEVICES). Of a UUID the beginning will do, with or without
    its prefix. A GPU that this process does not see is left for the manager to find. Raises DeviceLost for a number
    that there is no GPU of, UsageError for an ambiguous beginning.
    """
    which = gpu_of(place)
    if not which:
        return place
    number = gpu_number(place)
    if number is not None:
        return gpu_place(_numbered(drivers.find(environ), number).uuid)
    try:
        gpus = drivers.find(environ).gpus()
    except DeviceLost:  # no driver here; there may be one where the manager is
        gpus = ()
    found = [gpu.uuid for gpu in gpus if is_called(gpu.uuid, which)]
    if len(found) > 1:
        raise UsageError(f"{place} is ambiguous", f"it may be {' or '.join(found)}", "name more of the UUID")
    return gpu_place(found[0]) if found else place


def own(place: str, environ: Mapping[str, str] = os.environ) -> str:
    """The place of the GPU on which this process opens a model; `gpu` is the one that it would use anyway.

    Raises DeviceLost when the process does not see that GPU, and what `resolve` raises.
    """
    if place == GPU:
        return gpu_place(_numbered(drivers.find(environ), _current()).uuid)
    place = resolve(place, environ)
    seen(place, environ)
    return place


def seen(place: str, environ: Mapping[str, str] = os.environ) -> tuple[Driver, Gpu]:
    """The GPU of the place `gpu:<UUID>` as this process sees it. Raises DeviceLost."""
    driver = drivers.find(environ)
    for gpu in driver.gpus():
        if gpu_place(gpu.uuid) == place:
            return driver, gpu
    raise DeviceLost(f"this process does not see {place}", _how_many(driver), _HINT)


def _numbered(driver: Driver, ordinal: int) -> Gpu:
    gpus = driver.gpus()
    if ordinal >= len(gpus):
        raise DeviceLost(f"no GPU {ordinal}", _how_many(driver), _HINT)
    return gpus[ordinal]


def _how_many(driver: Driver) -> str:
    count = len(driver.gpus())
    if not count:
        return "this process sees none"
    return "this process sees one, number 0" if count == 1 else f"this process sees {count}, numbers 0 to {count - 1}"


def _current() -> int:
    """The number of the GPU that this process would use: PyTorch's current one where it uses GPUs, else the first."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return int(cuda.current_device())
    return 0
