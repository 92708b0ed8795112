"""CuPy arrays of a model: over the shared weights on a GPU, or copied to one from host memory.

A copy is made in one transfer, to one allocation. The shared weights are mapped for reading only: a kernel that writes
to such an array ends the CUDA context of this process, with an error at whatever call comes next. CuPy cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy

from trims.errors import DeviceLost, UsageError

if TYPE_CHECKING:
    from trims.client.attachment import AnyRegion
    from trims.client.device_mapping import DeviceRegion
    from trims.client.handle import Model


def arrays(model: Model, device: int | None = None) -> dict[str, cupy.ndarray]:
    """Every tensor of `model` by name, on the GPU `device` (default: the model's, or CuPy's current one). Tied ones
    share memory.

    Of a model on a GPU they are over the shared weights, must not be written to, and keep them and the lease. Otherwise
    they are this process's own copies. Raises UsageError when the model is on another GPU than `device`, or when CuPy
    has no such type (float8; bfloat16 before CuPy 14), DeviceLost without a GPU, or one that fails.
    """
    region = model.region()
    if region.on_gpu:
        return _shared(model, region, device)
    try:
        with cupy.cuda.Device(device):
            whole = cupy.empty(len(region.base), cupy.uint8)
            whole.set(region.base)
            return _over(model, region, whole.data)
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.memory.OutOfMemoryError) as error:
        raise DeviceLost(f"{model.ref} cannot be copied to a GPU", str(error), "see `nvidia-smi`") from None


def _shared(model: Model, region: DeviceRegion, device: int | None) -> dict[str, cupy.ndarray]:
    mapped = region.mapped
    mapped.check()
    if device not in (None, mapped.ordinal):
        raise UsageError(
            f"weights on GPU {mapped.ordinal} are no arrays on GPU {device}", "", f"open the model on gpu:{device}"
        )
    memory = cupy.cuda.UnownedMemory(mapped.address, mapped.nbytes, mapped, mapped.ordinal)
    with cupy.cuda.Device(mapped.ordinal):
        return _over(model, region, cupy.cuda.MemoryPointer(memory, 0))


def _over(model: Model, region: AnyRegion, start: cupy.cuda.MemoryPointer) -> dict[str, cupy.ndarray]:
    """The tensors of a region that begins at `start`. Raises UsageError for a type that this CuPy does not have."""
    made = {}
    for name, (shape, dtype, offset) in region.contents.views.items():
        try:
            made[name] = cupy.ndarray(shape, dtype, start + offset)
        except ValueError as error:
            why = f"tensor {name!r} is {dtype.name}: {error}"
            raise UsageError(f"CuPy cannot hold {model.ref}", why, "take the others one by one") from None
    return made
