"""Greedy dual with size and frequency: what is cheap to load again, large and little used goes first.

Each key is worth

    clock + uses * load_seconds / nbytes

as L. Cherkasova, "Improving WWW Proxies Performance with Greedy-Dual-Size-Frequency Caching Policy" (HP Labs
HPL-98-69R1, 1998) has it, after P. Cao and S. Irani, "Cost-Aware WWW Proxy Caching Algorithms" (USITS 1997). The clock
is the worth of the last victim: it grows as others go, so that old merits fade. The cost is the measured time of the
last load; `uses` is of one residency, as in lfu.
"""

from __future__ import annotations

from trims.residency.events import Key
from trims.residency.policies.ranked import Ranked


class Gdsf(Ranked):
    """The one that saves the fewest seconds of loading for each byte goes first; of equals the longest unused."""

    name = "gdsf"

    def __init__(self) -> None:
        super().__init__()
        self._clock = 0.0
        self._saves: dict[Key, tuple[int, float]] = {}

    def learn(self, key: Key, nbytes: int, load_seconds: float) -> None:
        self._saves[key] = (1, load_seconds / max(1, nbytes))

    def used(self, key: Key) -> None:
        uses, saved = self._saves[key]
        self._saves[key] = (uses + 1, saved)

    def forget(self, key: Key) -> None:
        del self._saves[key]

    def worth(self, key: Key) -> float:
        uses, saved = self._saves[key]
        return self._clock + uses * saved

    def chosen(self, key: Key) -> None:
        standing = self._standings[key]
        if standing is not None:
            self._clock = max(self._clock, standing[0])
