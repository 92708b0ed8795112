"""A request that reads every byte of every tensor once: the least that any inference at batch one must read.

The checksum is the sum of all 8-byte words, modulo 2^64, with each tensor's last bytes added one by one: independent of
the order of the tensors and of where they lie. Native is what a program without trims does with the file: safetensors'
or NumPy's loader, which copies the weights into private memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from trims.workload.functions import Job, Result

Array = np.ndarray[Any, Any]


def prepare(threads: int, side: str) -> None:
    """Import what the side's program imports before it loads anything."""
    if side == "trims":
        import trims.client.handle
        import trims.client.session  # noqa: F401
    else:
        import safetensors.numpy  # noqa: F401


def native(job: Job) -> Result:
    arrays = load(job.file)
    return lambda: total(arrays.values())


def shared(job: Job) -> tuple[str, Result]:
    import trims

    model = trims.open(job.ref, place=job.place, timeout=job.timeout)
    views = model.tensors()
    return model.how, lambda: total(views.values())


def load(path: str) -> dict[str, Array]:
    """Every tensor of a safetensors or .npz file, copied into private memory."""
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    from safetensors.numpy import load_file

    arrays: dict[str, Array] = load_file(path)
    return arrays


def total(arrays: Iterable[Array]) -> int:
    """The checksum of these arrays' bytes: reads each of them exactly once."""
    found = 0
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        words = len(flat) // 8 * 8
        found += int(np.add.reduce(flat[:words].view(np.uint64))) + int(np.add.reduce(flat[words:], dtype=np.uint64))
    return found % (1 << 64)
