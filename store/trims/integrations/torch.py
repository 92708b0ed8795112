"""Torch tensors over shared weights.

Torch cannot be told that memory is read-only: an in-place operation on a read-only map is a segmentation fault. So
tensors lie on a second, copy-on-write map of the same sealed memory: pages that are only read stay shared, a write goes
to a private copy of its page, and no neighbour ever sees it. Every storage holds the map, and the map the lease.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from trims.errors import UsageError

if TYPE_CHECKING:
    from trims.client.handle import Model

_OPAQUE = {
    "bfloat16": torch.bfloat16,
    **{name: getattr(torch, name) for name in (
        "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
        "uint16", "uint32", "uint64",
    ) if hasattr(torch, name)},
}  # fmt: skip
"""dtypes that go through bytes: NumPy does not know them, or torch did not always take them from NumPy."""


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """Every tensor of `model` by name, without a copy. Tied ones share memory; writes are private to this process."""
    region = model.region()
    base = region.private_base()
    whole = torch.from_numpy(base)
    made: dict[tuple[int, str, tuple[int, ...]], torch.Tensor] = {}
    result = {}
    for name, (shape, dtype, offset) in region.contents.views.items():
        content = (offset, dtype.name, shape)
        if content not in made:
            made[content] = _tensor(whole, base, shape, dtype, offset)
        result[name] = made[content]
    return result


def _tensor(
    whole: torch.Tensor, base: np.ndarray[Any, Any], shape: tuple[int, ...], dtype: np.dtype[Any], offset: int
) -> torch.Tensor:
    opaque = _OPAQUE.get(dtype.name)
    if opaque is None:
        return torch.from_numpy(np.ndarray(shape, dtype, base, offset))
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return whole[offset : offset + nbytes].view(opaque).view(shape)


def load_into(module: torch.nn.Module, model: Model) -> torch.nn.Module:
    """Make the parameters of `module` the tensors of `model`, without a copy; returns the module.

    Build the module on the meta device (`with torch.device("meta"): ...`), so that it never has weights of its own.
    Buffers become private copies, because modules write to them. Raises UsageError when names or shapes do not match,
    or when the module has state on the meta device that the model does not hold.
    """
    state = tensors(model)
    buffers = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    state = {name: tensor.clone() if name in buffers else tensor for name, tensor in state.items()}
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{model.ref} does not fit the module", str(error)) from None
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise UsageError(
            f"{model.ref} leaves part of the module without values",
            f"{', '.join(left)} {'is' if len(left) == 1 else 'are'} on the meta device and not in the model",
            "assign these yourself before load_into, or build them outside of torch.device('meta')",
        )
    return module
