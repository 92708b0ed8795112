"""JAX arrays over shared weights.

On the CPU JAX takes memory as it is when it is aligned to 64 bytes, and every tensor of a region is. Its arrays cannot
be written to, but it hands its memory on (DLPack, donated arguments) to what may write; so the memory is a
copy-on-write map, and such a write stays in this process. On another device every tensor is copied to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from trims.client.handle import Model


def arrays(model: Model, device: Any = None) -> dict[str, jax.Array]:
    """Every tensor of `model` by name, as JAX arrays on `device` (or of a sharding; default: JAX's own default).

    Without `jax_enable_x64` JAX has no 64-bit types: such tensors become 32-bit copies, as with `jax.device_put`. What
    had to be copied in host memory is counted by `Model.memory`.
    """
    region = model.region()
    views = region.views(region.private_base())
    made = jax.device_put(list(views.values()), device)
    for view, array in zip(views.values(), made, strict=True):
        if _is_copy(array, view):
            model.count_copy(array, array.nbytes)
    return dict(zip(views, made, strict=True))


def _is_copy(array: jax.Array, view: np.ndarray[Any, Any]) -> bool:
    """Whether `array` has host memory other than that of `view`."""
    devices = array.devices()
    if not view.nbytes or len(devices) > 1 or next(iter(devices)).platform != "cpu":
        return False
    return bool(array.unsafe_buffer_pointer() != view.__array_interface__["data"][0])
