"""The interface of an eviction policy: in which order residencies of one place are given up.

A policy keeps its own order as things happen, so that a decision costs what it yields, not what it holds: every method
is O(log n) or better, and `victims` yields each next one in O(log n). It decides order only. Whether something may go
at all is the machine's business: what is leased or pinned is *held*, and a policy never yields what is held.
It is pure and deterministic: the same calls give the same order; a random policy takes its seed in the constructor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Self

from trims.residency.events import Key


class Policy(ABC):
    """One place's order of eviction. Times come from the caller's clock and never go back.

    evicts: whether anything goes because somebody needs its room (if not, the order serves only those who evict by
    hand). sweeps: whether all that may go goes when anything has to. eager: whether a residency goes when its last
    lease ends.
    """

    name: ClassVar[str]
    evicts: ClassVar[bool] = True
    sweeps: ClassVar[bool] = False
    eager: ClassVar[bool] = False

    @abstractmethod
    def fresh(self) -> Self:
        """An empty policy with the same settings: each place has its own."""

    @abstractmethod
    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        """`key` became resident: it takes `nbytes`, and loading it again would cost about `load_seconds`."""

    @abstractmethod
    def hit(self, key: Key, now: float) -> None:
        """`key` was asked for while resident."""

    @abstractmethod
    def hold(self, key: Key) -> None:
        """`key` cannot be a victim until it is released: it is leased or pinned."""

    @abstractmethod
    def release(self, key: Key, now: float) -> None:
        """`key` can be a victim again; its last use ends now."""

    def chosen(self, key: Key) -> None:  # noqa: B027 - most policies need not know
        """`key` goes because `victims` named it; `remove` follows. (What goes for another reason is only removed.)"""

    @abstractmethod
    def remove(self, key: Key) -> None:
        """`key` is resident no more, held or not."""

    @abstractmethod
    def victims(self, now: float) -> Iterator[Key]:
        """What may go, best to lose first. The order stays as it is; drop the iterator before the next change."""

    @abstractmethod
    def __len__(self) -> int:
        """How many it knows, held ones included."""
