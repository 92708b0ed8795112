"""CuPy arrays of a model: host memory is copied to the GPU, all tensors in one transfer and one allocation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cupy

from trims.errors import DeviceLost

if TYPE_CHECKING:
    from trims.client.handle import Model


def arrays(model: Model, device: int | None = None) -> dict[str, cupy.ndarray]:
    """Every tensor of `model` by name, on the GPU `device` (default: CuPy's current one). Tied ones share memory.

    The copy is this process's own: it may be written to. Raises DeviceLost without a GPU, or one that fails.
    """
    region = model.region()
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
