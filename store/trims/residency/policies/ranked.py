"""What policies have in common that give each key a worth: the least worth goes first, of equals the first to stand so.

A key's worth is taken when it comes, when it is hit and when it is released; while it is held it has no place in the
order. Every call is O(log n), and so is each next victim.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Self

from trims.residency.events import Key
from trims.residency.policies.base import Policy
from trims.residency.policies.ordered import Ordered

Standing = tuple[float, int, Key]
"""(worth, turn, key); turns count up, so that no two are equal."""


class Ranked(Policy):
    """A policy by worth. A subclass keeps what it needs about each key in `learn`, `used` and `forget`."""

    def __init__(self) -> None:
        self._order: Ordered[Standing] = Ordered()
        self._standings: dict[Key, Standing | None] = {}
        self._turn = 0

    def fresh(self) -> Self:
        return type(self)()

    @abstractmethod
    def learn(self, key: Key, nbytes: int, load_seconds: float) -> None:
        """`key` is new here."""

    def used(self, key: Key) -> None:
        """`key` was hit."""

    @abstractmethod
    def forget(self, key: Key) -> None:
        """`key` is not here any more."""

    @abstractmethod
    def worth(self, key: Key) -> float:
        """What `key` is worth now."""

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        self.learn(key, nbytes, load_seconds)
        self._stand(key)

    def hit(self, key: Key, now: float) -> None:
        self.used(key)
        standing = self._standings[key]
        if standing is not None:
            self._order.remove(standing)
            self._stand(key)

    def hold(self, key: Key) -> None:
        standing = self._standings[key]
        assert standing is not None
        self._order.remove(standing)
        self._standings[key] = None

    def release(self, key: Key, now: float) -> None:
        self._stand(key)

    def remove(self, key: Key) -> None:
        standing = self._standings.pop(key)
        if standing is not None:
            self._order.remove(standing)
        self.forget(key)

    def victims(self, now: float) -> Iterator[Key]:
        for _, _, key in self._order:
            yield key

    def __len__(self) -> int:
        return len(self._standings)

    def _stand(self, key: Key) -> None:
        self._turn += 1
        standing = self._standings[key] = (self.worth(key), self._turn, key)
        self._order.add(standing)
