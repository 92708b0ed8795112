"""CuPy arrays of a model: over the shared weights on a GPU, or copied to one from host memory.

A copy is made in one transfer, to one allocation. The shared weights are mapped for reading only: a kernel that writes
to such an array ends the CUDA context of this process, with an error at whatever call comes next. CuPy cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy

from trims.errors import DeviceLost, UsageError

if TYPE_CHECKING:
    from trims.client.device_mapping import DeviceRegion
    from trims.client.handle import Model


def arrays(model: Model, device: int | None = None) -> dict[str, cupy.ndarray]:
    """Every tensor of `model` by name, on the GPU `device` (default: the model's, or CuPy's current one). Tied ones
    share memory.

    Of a model on a GPU they are over the shared weights, must not be written to, and keep them and the lease. Otherwise
    they are this process's own copies. Raises UsageError when the model is on another GPU than `device`, DeviceLost
    without a GPU, or one that fails.
    """
    region = model.region()
    if region.on_gpu:
        return _shared(region, device)
    try:
        with cupy.cuda.Device(device):
            whole = cupy.empty(len(region.base), cupy.uint8)
            whole.set(region.base)
            return {
                name: cupy.ndarray(shape, dtype, whole.data + offset)
                for name, (shape, dtype, offset) in region.contents.views.items()
            }
    except (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.memory.OutOfMemoryError) as error:
        raise DeviceLost(f"{model.ref} cannot be copied to a GPU", str(error), "see `nvidia-smi`") from None


def _shared(region: DeviceRegion, device: int | None) -> dict[str, cupy.ndarray]:
    mapped = region.mapped
    mapped.check()
    if device not in (None, mapped.ordinal):
        raise UsageError(
            f"weights on GPU {mapped.ordinal} are no arrays on GPU {device}", "", f"open the model on gpu:{device}"
        )
    memory = cupy.cuda.UnownedMemory(mapped.address, mapped.nbytes, mapped, mapped.ordinal)
    with cupy.cuda.Device(mapped.ordinal):
        return {
            name: cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, offset))
            for name, (shape, dtype, offset) in region.contents.views.items()
        }
