"""JAX arrays over shared weights.

On the CPU JAX takes memory as it is when it is aligned to 64 bytes, and every tensor of a region is. Its arrays cannot
be written to, but it hands its memory on (DLPack, donated arguments) to what may write; so the memory is a
copy-on-write map, and such a write stays in this process. On another device every tensor is copied to it.

A model on a GPU is taken as it is there, by DLPack. To donate such an array, or otherwise have JAX reuse its memory,
ends the CUDA context of this process: the memory is mapped for reading only, and JAX does not know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from trims.errors import DeviceLost

if TYPE_CHECKING:
    from trims.client.device_array import DeviceArray
    from trims.client.handle import Model


def arrays(model: Model, device: Any = None) -> dict[str, jax.Array]:
    """Every tensor of `model` by name, as JAX arrays on `device` (or of a sharding; default: JAX's own default).

    Without `jax_enable_x64` JAX has no 64-bit types: such tensors become 32-bit copies, as with `jax.device_put`. What
    had to be copied in host memory is counted by `Model.memory`.

    Of a model on a GPU what JAX does not take from there (such 64-bit types, and types it has no DLPack for) is copied
    through the host, and counted. Raises DeviceLost when JAX does not see that GPU.
    """
    region = model.region()
    if region.on_gpu:
        return _on_gpu(model, region.views(), device)
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


def _on_gpu(model: Model, views: dict[str, DeviceArray], device: Any) -> dict[str, jax.Array]:
    made = {}
    for name, view in views.items():
        array = _taken(view)
        if array is None:
            array = jax.device_put(view.get(), _gpu(view.device) if device is None else device)
            model.count_copy(array, array.nbytes)
        elif device is not None:
            array = jax.device_put(array, device)
        made[name] = array
    return made


def _taken(view: DeviceArray) -> jax.Array | None:
    """The tensor as a JAX array over its own memory, or None where JAX takes no such thing."""
    if not view.size or _is_narrowed(view.dtype):
        return None
    _gpu(view.device)
    try:
        return jax.dlpack.from_dlpack(view)
    except (BufferError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return None


def _is_narrowed(dtype: np.dtype[Any]) -> bool:
    """Whether JAX, as it is set, makes another type of this one."""
    return dtype.itemsize >= 8 and dtype.name != "complex64" and not jax.config.jax_enable_x64


def _gpu(ordinal: int) -> jax.Device:
    """The GPU of that number in this process, to JAX."""
    try:
        found = [device for device in jax.local_devices(backend="cuda") if device.local_hardware_id == ordinal]
    except RuntimeError as error:
        raise DeviceLost("JAX does not see GPUs", str(error).partition("\n")[0], "pip install 'jax[cuda12]'") from None
    if not found:
        raise DeviceLost(f"JAX does not see GPU {ordinal}", "", "see CUDA_VISIBLE_DEVICES and JAX_PLATFORMS")
    return found[0]
