"""SIEVE: a queue in order of coming, and a hand that passes over what was used since it last came by.

Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, "SIEVE is Simpler than LRU" (NSDI 2024). A hit marks; it moves
nothing. The hand goes from the oldest to the newest and round again: it clears the marks it meets and stops at the
first key without one, which goes. So what is used once and never again leaves soon, and what is used stays.

The order that this leads to can be said without moving the hand: from the hand on, round once, those without a mark;
then, round once more, those that had one. The two are kept apart, each sorted by coming. Only a victim that goes moves
the hand and clears what it passed; a mark is cleared at most once for each hit that set it, so that a call costs
O(log n) amortised. What is held keeps its mark and its place: to be in use is to be used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from trims.residency.events import Key
from trims.residency.policies.base import Policy
from trims.residency.policies.ordered import Ordered

Spot = tuple[int, Key]
"""(number of coming, key)."""


class Sieve(Policy):
    """From the hand on, the first that was not used since the hand came by."""

    name = "sieve"

    def __init__(self) -> None:
        self._spots: dict[Key, Spot] = {}
        self._marked: set[Key] = set()
        self._held: set[Key] = set()
        self._unused: Ordered[Spot] = Ordered()
        self._used: Ordered[Spot] = Ordered()
        self._came = self._hand = 0

    def fresh(self) -> Self:
        return type(self)()

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        self._came += 1
        spot = self._spots[key] = (self._came, key)
        self._unused.add(spot)

    def hit(self, key: Key, now: float) -> None:
        if key not in self._marked:
            self._marked.add(key)
            if key not in self._held:
                self._unused.remove(self._spots[key])
                self._used.add(self._spots[key])

    def hold(self, key: Key) -> None:
        self._queue(key).remove(self._spots[key])
        self._held.add(key)

    def release(self, key: Key, now: float) -> None:
        self._held.remove(key)
        self._queue(key).add(self._spots[key])

    def chosen(self, key: Key) -> None:
        number = self._spots[key][0]
        if key in self._marked:
            passed = list(self._used)  # the hand has been round
        elif number >= self._hand:
            passed = self._between(self._hand, number)
        else:
            passed = self._between(self._hand, self._came + 1) + self._between(0, number)
        for spot in passed:
            self._used.remove(spot)
            self._unused.add(spot)
            self._marked.discard(spot[1])
        self._hand = 0 if key == next(reversed(self._spots)) else number + 1  # past the newest it begins again

    def remove(self, key: Key) -> None:
        if key in self._held:
            self._held.remove(key)
        else:
            self._queue(key).remove(self._spots[key])
        del self._spots[key]
        self._marked.discard(key)

    def victims(self, now: float) -> Iterator[Key]:
        for queue in (self._unused, self._used):
            for _, key in queue.since((self._hand,)):
                yield key
            for number, key in queue:
                if number >= self._hand:
                    break
                yield key

    def __len__(self) -> int:
        return len(self._spots)

    def _queue(self, key: Key) -> Ordered[Spot]:
        return self._used if key in self._marked else self._unused

    def _between(self, start: int, end: int) -> list[Spot]:
        """The used ones whose numbers lie from `start` to below `end`."""
        found = []
        for spot in self._used.since((start,)):
            if spot[0] >= end:
                break
            found.append(spot)
        return found
