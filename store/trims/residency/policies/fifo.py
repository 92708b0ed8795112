"""First in, first out: what came first goes first, however often it was used since."""

from __future__ import annotations

from trims.residency.events import Key
from trims.residency.policies.ranked import Ranked


class Fifo(Ranked):
    """The one that has been resident longest goes first; hits and leases do not matter."""

    name = "fifo"

    def __init__(self) -> None:
        super().__init__()
        self._came: dict[Key, int] = {}
        self._count = 0

    def learn(self, key: Key, nbytes: int, load_seconds: float) -> None:
        self._count += 1
        self._came[key] = self._count

    def hit(self, key: Key, now: float) -> None:
        """Nothing: its place is that of its coming."""

    def forget(self, key: Key) -> None:
        del self._came[key]

    def worth(self, key: Key) -> float:
        return self._came[key]
