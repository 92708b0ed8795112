"""What every way of opening a model returns, and the warning of those ways that share no memory.

Apart from `trims.client.direct`, so that a client of a manager does not load what reads and verifies files.
"""

from __future__ import annotations

from trims.client.mapping import Region

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

    def __init__(self, digest: str, variant: str, place: str, region: Region, how: str) -> None:
        self.digest, self.variant, self.place, self.region, self.how = digest, variant, place, region, how
