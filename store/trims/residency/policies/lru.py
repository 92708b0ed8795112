"""Least recently used: an ordered dictionary of what may go, oldest end of use first, and a set of what is held."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Self

from trims.residency.events import Key
from trims.residency.policies.base import Policy


class Lru(Policy):
    """The one whose last use ended longest ago goes first. Every call is O(1)."""

    name = "lru"

    def __init__(self) -> None:
        self._idle: OrderedDict[Key, None] = OrderedDict()
        self._held: set[Key] = set()

    def fresh(self) -> Self:
        return type(self)()

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        self._idle[key] = None
        self._idle.move_to_end(key)

    def hit(self, key: Key, now: float) -> None:
        if key in self._idle:
            self._idle.move_to_end(key)

    def hold(self, key: Key) -> None:
        del self._idle[key]
        self._held.add(key)

    def release(self, key: Key, now: float) -> None:
        self._held.remove(key)
        self._idle[key] = None

    def remove(self, key: Key) -> None:
        self._idle.pop(key, None)
        self._held.discard(key)

    def victims(self, now: float) -> Iterator[Key]:
        return iter(self._idle)

    def __len__(self) -> int:
        return len(self._idle) + len(self._held)
