"""Least frequently used, the paper's "least commonly used" (lcu): the fewest uses since it was loaded goes first.

The count is of one residency: it begins at 1 with the load and ends with it, so that the memory it takes is that of
what is resident, and what comes back begins anew. It does not age either: what was in great demand once stays until
everything else is in greater demand. Where popularity shifts, gdsf, sieve and s3fifo do better.
"""

from __future__ import annotations

from trims.residency.events import Key
from trims.residency.policies.ranked import Ranked


class Lfu(Ranked):
    """The one with the fewest uses goes first; of equals the one whose last use ended longest ago."""

    name = "lfu"

    def __init__(self) -> None:
        super().__init__()
        self._uses: dict[Key, int] = {}

    def learn(self, key: Key, nbytes: int, load_seconds: float) -> None:
        self._uses[key] = 1

    def used(self, key: Key) -> None:
        self._uses[key] += 1

    def forget(self, key: Key) -> None:
        del self._uses[key]

    def worth(self, key: Key) -> float:
        return self._uses[key]
