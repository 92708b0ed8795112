"""Random: any that may go, with the same chance. From a seed, so that the same story has the same end.

The numbers are those of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA
2014): a function of the seed, how many victims went before, and how many are drawn already. So the order of victims is
a shuffle of what may go, drawn one by one as it is read, and another one after each victim.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from trims.residency.events import Key
from trims.residency.policies.base import Policy

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def splitmix64(n: int) -> int:
    """The 64 random bits that belong to `n`."""
    z = (n * _GAMMA) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


class Random(Policy):
    """Any of those that may go, drawn from a seed.

    Every call is O(1): what leaves a list without order gives its place to the last.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._idle: list[Key] = []
        self._at: dict[Key, int] = {}
        self._held: set[Key] = set()
        self._went = 0

    def fresh(self) -> Self:
        return type(self)(self._seed)

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        self._at[key] = len(self._idle)
        self._idle.append(key)

    def hit(self, key: Key, now: float) -> None:
        """Nothing: use does not matter."""

    def hold(self, key: Key) -> None:
        self._take(key)
        self._held.add(key)

    def release(self, key: Key, now: float) -> None:
        self._held.remove(key)
        self.insert(key, 0, 0.0, now)

    def chosen(self, key: Key) -> None:
        self._went += 1

    def remove(self, key: Key) -> None:
        if key in self._at:
            self._take(key)
        else:
            self._held.remove(key)

    def victims(self, now: float) -> Iterator[Key]:
        swapped: dict[int, Key] = {}
        start = splitmix64(self._seed) + splitmix64(self._went + 1)
        for n in range(len(self._idle)):
            drawn = n + (splitmix64(start + n) * (len(self._idle) - n) >> 64)
            yield swapped.get(drawn) or self._idle[drawn]
            swapped[drawn] = swapped.get(n) or self._idle[n]

    def __len__(self) -> int:
        return len(self._idle) + len(self._held)

    def _take(self, key: Key) -> None:
        at, last = self._at.pop(key), self._idle.pop()
        if last != key:
            self._idle[at] = last
            self._at[last] = at
