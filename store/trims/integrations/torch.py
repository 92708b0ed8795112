"""Torch tensors over shared weights.

Torch cannot be told that memory is read-only: an in-place operation on a read-only map is a segmentation fault. So
tensors lie on a second, copy-on-write map of the same sealed memory: pages that are only read stay shared, a write goes
to a private copy of its page, and no neighbour ever sees it. Every storage holds the map, and the map the lease.

On a GPU there is no copy-on-write. Tensors lie on the shared memory itself, mapped for reading only: a write to one
ends the CUDA context of this process, with an error at whatever call comes next. Equal ones may be the same memory.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch

from trims.client import capsules
from trims.client.private import Private
from trims.errors import DeviceLost, UsageError

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


class Storages:
    """The tensors of a model, written to by nobody who did not get them from here.

    Each has a storage of its own, as long as itself: to save, move or share it takes no more than it. keep: they hold
    the model itself, too, not only its memory.
    """

    __slots__ = ("_keep", "_private", "_region")

    def __init__(self, model: Model, keep: bool = False) -> None:
        self._region, self._keep = model.region(), model if keep else None
        self._private = None if self._region.on_gpu else Private(self._region, self._keep)

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor `name`; called twice, two tensors over the same memory. Raises KeyError."""
        shape, dtype, _ = self._region.contents.views[name]
        kind = _OPAQUE.get(dtype.name)
        if kind is None:
            if self._private is not None:
                return torch.from_numpy(self._private.array(name))
            kind = getattr(torch, dtype.name)
        return self.storage(name).view(kind).view(shape)

    def storage(self, name: str) -> torch.Tensor:
        """The bytes of the tensor `name`. Raises KeyError, DeviceLost."""
        shape, dtype, offset = self._region.contents.views[name]
        nbytes = prod(shape) * dtype.itemsize
        if self._private is None:
            return self._on_gpu(offset, nbytes)
        base, offset = self._private.place(name)
        return torch.from_numpy(np.ndarray((nbytes,), np.uint8, base, offset))

    def _on_gpu(self, offset: int, nbytes: int) -> torch.Tensor:
        """Bytes on the GPU. Which other types DLPack carries depends on torch's version, as does what becomes of

        memory that is said to be read-only: the first version of DLPack has no words for that.
        """
        assert self._region.on_gpu
        mapped = self._region.mapped
        mapped.check()
        device, owner = (capsules.CUDA, mapped.ordinal), (mapped, self._keep)
        address, dtype = mapped.address + offset, np.dtype(np.uint8)
        capsule = capsules.of_memory(address, (nbytes,), dtype, device, owner, versioned=False)
        try:
            return torch.from_dlpack(capsule)
        except (AssertionError, BufferError, RuntimeError) as error:
            why = str(error).partition("\n")[0]
            raise DeviceLost(f"torch cannot use GPU {mapped.ordinal}", why, "install a torch with CUDA") from None


def tensors(model: Model) -> dict[str, torch.Tensor]:
    """Every tensor of `model` by name, without a copy; writes to one are private to it, and to this process.

    Also tied ones are apart, as in a safetensors file: the store does not know them from those that are only equal.
    `load_into` ties what the module ties. Small equal ones are copies.

    Of a model on a GPU they are on that GPU and must not be written to: see the top of this module. Raises DeviceLost
    when torch cannot use it.
    """
    storages = Storages(model)
    return {name: storages.tensor(name) for name in model.region().contents.views}


def load_into(module: torch.nn.Module, model: Model) -> torch.nn.Module:
    """Make the parameters of `module` the tensors of `model`, without a copy; returns the module.

    Build the module on the meta device (`with torch.device("meta"): ...`), so that it never has weights of its own.
    Buffers become private copies, because modules write to them. Parameters that the module ties stay tied, also when
    the model has only one of their names. Raises UsageError when names or shapes do not match, or when the module has
    state on the meta device that the model does not hold.
    """
    ties = _ties(module)
    state = tensors(model)
    for name, _ in module.named_buffers(remove_duplicate=False):
        if name in state:
            state[name] = state[name].clone()
            model.count_copy(state[name], state[name].nbytes)
    for names in ties:
        known = next((name for name in names if name in state), None)
        state.update({name: state[known] for name in names if known and name not in state})
    try:
        module.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UsageError(f"{model.ref} does not fit the module", str(error)) from None
    for *others, last in ties:  # of values that differ the last one stays, as when they are copied one after another
        for name in others:
            _tie(module, last, name)
    _check_whole(module, model)
    return module


def _ties(module: torch.nn.Module) -> list[list[str]]:
    """The names of each parameter that has several."""
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _tie(module: torch.nn.Module, name: str, other: str) -> None:
    """Make `other` the parameter `name` again: when a state is assigned, each name gets a parameter of its own."""
    path, _, last = other.rpartition(".")
    module.get_submodule(path).register_parameter(last, module.get_parameter(name))


def _check_whole(module: torch.nn.Module, model: Model) -> None:
    left = [name for name, tensor in (*module.named_parameters(), *module.named_buffers()) if tensor.is_meta]
    if left:
        raise UsageError(
            f"{model.ref} leaves part of the module without values",
            f"{', '.join(left)} {'is' if len(left) == 1 else 'are'} on the meta device and not in the model",
            "assign these yourself before load_into, or build them outside of torch.device('meta')",
        )
