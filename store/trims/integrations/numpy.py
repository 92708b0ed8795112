"""NumPy arrays over shared weights: read-only, so that a write is an error; or, when asked for, private to the writer.

Any other library that takes NumPy arrays, or anything with `__dlpack__`, takes these; `trims.integrations.dlpack` has
the dtypes that NumPy cannot export.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trims.client.private import Private

if TYPE_CHECKING:
    from trims.client.device_mapping import DeviceRegion
    from trims.client.handle import Model


def arrays(model: Model, writable: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    """Every tensor of `model` by name, without a copy. Equal ones may be the same memory, unless they are writable.

    writable: on a copy-on-write map of their own: a write copies the page that it touches (see `Model.memory`), and no
        other process, nor any other array of this one, sees it. Otherwise writing raises ValueError.

    Of a model on a GPU they are copies in host memory. Raises DeviceLost when those cannot be made.
    """
    region = model.region()
    if region.on_gpu:
        return _copied(model, region, writable)
    if not writable:
        return region.views()
    private = Private(region)
    return {name: private.array(name) for name in private.views}


def _copied(model: Model, region: DeviceRegion, writable: bool) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors in one piece of host memory; writable ones that are equal, each in its own."""
    base = region.copy()
    base.flags.writeable = writable
    model.count_copy(base, base.nbytes)
    made = region.contents.over(base)
    if writable:
        first: dict[int, str] = {}
        for name, (_, _, offset) in region.contents.views.items():
            if first.setdefault(offset, name) != name:
                made[name] = made[name].copy()
                model.count_copy(made[name], made[name].nbytes)
    return made
