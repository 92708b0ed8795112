"""A request that reads every byte through torch tensors: safetensors' or torch's loader against `model.torch()`.

Each tensor is summed as 8-byte integers by torch (wrapping, so exact and independent of threads and order); where its
memory does not lie on a multiple of 8 or has a rest, by NumPy over the same memory. The checksum is that of `weights`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from trims.workload.functions import Job, Result
from trims.workload.functions.weights import total


def prepare(threads: int, side: str) -> None:
    """Import what the side's program imports before it loads anything."""
    import torch

    torch.set_num_threads(threads)
    if side == "trims":
        import trims.client.handle
        import trims.client.session
        import trims.integrations.torch  # noqa: F401
    else:
        import safetensors.torch  # noqa: F401


def native(job: Job) -> Result:
    tensors = _load(job.file)
    return lambda: _total(tensors.values())


def shared(job: Job) -> tuple[str, Result]:
    import trims

    model = trims.open(job.ref, place=job.place, timeout=job.timeout)
    tensors = model.torch()
    return model.how, lambda: _total(tensors.values())


def _load(path: str) -> dict[str, Any]:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return dict(load_file(path))
    import torch

    state = torch.load(path, weights_only=True)
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def _total(tensors: Iterable[Any]) -> int:
    import torch

    found = 0
    for tensor in tensors:
        flat = tensor.detach().contiguous().reshape(-1)
        whole = flat.view(torch.uint8)
        if len(whole) % 8 == 0 and whole.storage_offset() % 8 == 0 and whole.data_ptr() % 8 == 0 and len(whole):
            found += int(whole.view(torch.int64).sum())
        else:
            found += total([np.asarray(whole.numpy())])
    return found % (1 << 64)
