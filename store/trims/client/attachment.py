"""What every way of opening a model returns, and the warning of those ways that share no memory.

Apart from `trims.client.direct`, so that a client of a manager does not load what reads and verifies files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from trims.client.mapping import Region
from trims.errors import UsageError

if TYPE_CHECKING:
    from trims.client.device_mapping import DeviceRegion

AnyRegion: TypeAlias = "Region | DeviceRegion"
"""One form of a model, mapped, in host memory or on a GPU; `on_gpu` tells which."""

RAW = "raw"
DIRECT = "direct"
"""How a model is attached without a manager."""


class DirectModeWarning(UserWarning):
    """A model is used without the manager that was expected, or in a way that shares no memory."""


class Attachment:
    """One form of a model, mapped: what every way of opening one returns.

    variant: "raw", or a derived form's key. how: what it took; see `Model.how`.
    """

    __slots__ = ("digest", "how", "place", "region", "variant")

    def __init__(self, digest: str, variant: str, place: str, region: AnyRegion, how: str) -> None:
        self.digest, self.variant, self.place, self.region, self.how = digest, variant, place, region, how


def in_host_memory(region: AnyRegion) -> Region:
    """The same region, for who can use it in host memory only. Raises UsageError when it is on a GPU."""
    if region.on_gpu:
        raise UsageError(
            "weights on a GPU cannot be used here",
            f"the model was opened on {region.place}, and host memory is needed",
            "open it with place='host', or copy it with model.numpy()",
        )
    return region
