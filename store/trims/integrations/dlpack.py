"""Shared weights for every library that takes DLPack: `jax.numpy.from_dlpack`, `torch.from_dlpack`, TensorFlow's.

NumPy makes the capsules, so they keep the memory and are safe to drop in any thread. It refuses those of read-only
arrays, so the memory is a copy-on-write map: what a consumer writes is private to this process. And it has no bfloat16
and no float8; these it exports as integers of the same size, and their type is put right in the capsule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trims.client import capsules
from trims.client.capsules import CPU
from trims.client.private import Private

if TYPE_CHECKING:
    from trims.client.handle import Model


class Shared:
    """One tensor, as DLPack's protocol wants it: pass it to any `from_dlpack`."""

    __slots__ = ("_array",)

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        """array: writable."""
        self._array = array

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU

    def __dlpack__(
        self, *, stream: object = None, max_version: object = None, dl_device: object = None, copy: bool | None = None
    ) -> object:
        """A capsule of the first version of the protocol, whatever newest version the consumer knows."""
        if stream is not None or dl_device not in (None, CPU):
            raise BufferError("the tensor is in host memory, without a stream")
        array = self._array.copy() if copy else self._array
        return capsules.of_array(array)

    def __repr__(self) -> str:
        return f"<trims.integrations.dlpack.Shared {self.dtype.name} {self.shape}>"


def tensors(model: Model) -> dict[str, Any]:
    """Every tensor of `model` by name, without a copy; what consumers write is private to this process and counted.

    On a GPU they are its own tensors, which must not be written to: see `trims.client.device_array.DeviceArray`.
    """
    region = model.region()
    if region.on_gpu:
        return dict(region.views())
    private = Private(region)
    return {name: Shared(private.array(name)) for name in private.views}
