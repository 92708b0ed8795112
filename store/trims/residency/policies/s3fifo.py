"""S3-FIFO: a small queue for what is new, a main queue for what has proved itself, and a memory of what went too soon.

J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache eviction" (SOSP 2023), with
queues measured in bytes:

- What comes is put into the small queue; what went from there lately (a *ghost*) into the main one.
- While the small queue has more than a tenth of the bytes, it gives: its oldest goes and leaves a ghost, unless it was
  hit twice or more since it came: then it moves to the main queue instead, its count begun anew.
- Else the main queue gives: its oldest goes, unless it was hit: then it goes to the end, for one hit less (3 at most).

The main queue's turns lead to an order that can be said without turning it: by hits left, then by place. So its keys
are sorted by *round*, base + hits left, where `base` counts the full turns. Only a victim that goes turns the queue,
and each key that is then sent to the end pays with a hit: O(log n) a call, amortised. The first victim is exactly
the one that the queues would give; of several at once, bytes that would move between the queues meanwhile are left out
of account. What is held keeps its place and its hits.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Self

from trims.residency.events import Key
from trims.residency.policies.base import Policy
from trims.residency.policies.ordered import Ordered

SMALL_SHARE = 0.1
"""The small queue's share of the bytes, as in the paper."""
MOST_HITS = 3
GHOSTS = 1 << 16


@dataclass(slots=True)
class _Item:
    """main: in which queue. number: its place there. hits: those left, kept right while it is not in the order.

    standing: (round, number, key) in the order, or None while it is held.
    """

    nbytes: int
    main: bool
    number: int
    hits: int = 0
    standing: tuple[int, int, Key] | None = None


class S3Fifo(Policy):
    """What was used once goes early; what is used again and again stays, at no cost to a hit."""

    name = "s3fifo"

    def __init__(self) -> None:
        self._items: dict[Key, _Item] = {}
        self._small: Ordered[tuple[int, int, Key]] = Ordered()  # of the small queue: hit at most once
        self._grown: Ordered[tuple[int, int, Key]] = Ordered()  # of the small queue: to move to the main one
        self._main: Ordered[tuple[int, int, Key]] = Ordered()
        self._bytes = [0, 0]  # of the small and of the main queue, held ones included
        self._ghosts: OrderedDict[Key, int] = OrderedDict()
        self._ghost_bytes = self._base = self._number = 0

    def fresh(self) -> Self:
        return type(self)()

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        ghost = self._ghosts.pop(key, None)
        self._ghost_bytes -= ghost or 0
        item = self._items[key] = _Item(nbytes, ghost is not None, self._next())
        self._bytes[item.main] += nbytes
        self._stand(key, item)

    def hit(self, key: Key, now: float) -> None:
        item = self._items[key]
        held = item.standing is None
        if not held:
            self._leave(item)
        item.hits = min(MOST_HITS, item.hits + 1)
        if not held:
            self._stand(key, item)

    def hold(self, key: Key) -> None:
        self._leave(self._items[key])

    def release(self, key: Key, now: float) -> None:
        self._stand(key, self._items[key])

    def chosen(self, key: Key) -> None:
        item = self._items[key]
        if not item.main and item.hits < 2:
            self._remember(key, item.nbytes)
            self._promote(takewhile(lambda standing: standing[1] < item.number, self._grown))
            return
        if not item.main:  # the small queue had nothing to give: all of it has moved
            self._promote(self._grown)
        self._turn(item)

    def remove(self, key: Key) -> None:
        item = self._items.pop(key)
        self._bytes[item.main] -= item.nbytes
        if item.standing is not None:
            self._leave(item)

    def victims(self, now: float) -> Iterator[Key]:
        small, grown, main = iter(self._small), iter(self._grown), iter(self._main)
        new, risen, old = next(small, None), next(grown, None), next(main, None)
        (small_bytes, main_bytes), moved = self._bytes, 0.0
        while new or risen or old:
            over = small_bytes > SMALL_SHARE * (small_bytes + main_bytes)
            if not new and (over or not old):
                moved = float("inf")
            ready = risen is not None and risen[1] < moved  # it is in the main queue by now, with no hits left
            if new and (over or not (ready or old)):
                yield new[2]
                moved, small_bytes = new[1], small_bytes - self._items[new[2]].nbytes
                new = next(small, None)
            elif risen and ready and (not old or old[0] > self._base):
                yield risen[2]
                small_bytes -= self._items[risen[2]].nbytes
                risen = next(grown, None)
            elif old:
                yield old[2]
                main_bytes -= self._items[old[2]].nbytes
                old = next(main, None)

    def __len__(self) -> int:
        return len(self._items)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _queue(self, item: _Item) -> Ordered[tuple[int, int, Key]]:
        if item.main:
            return self._main
        return self._grown if item.hits >= 2 else self._small

    def _stand(self, key: Key, item: _Item) -> None:
        item.standing = (self._base + item.hits if item.main else 0, item.number, key)
        self._queue(item).add(item.standing)

    def _leave(self, item: _Item) -> None:
        assert item.standing is not None
        self._queue(item).remove(item.standing)
        if item.main:
            item.hits = max(0, item.standing[0] - self._base)
        item.standing = None

    def _promote(self, standings: Iterable[tuple[int, int, Key]]) -> None:
        """Move these from the small to the main queue."""
        for _, _, key in list(standings):
            item = self._items[key]
            self._leave(item)
            self._bytes[0] -= item.nbytes
            self._bytes[1] += item.nbytes
            item.main, item.number, item.hits = True, self._next(), 0
            self._stand(key, item)

    def _turn(self, item: _Item) -> None:
        """The main queue has been turned up to `item`: full turns, and then what stood before it once more."""
        assert item.standing is not None
        self._base = max(self._base, item.standing[0])
        passed = []
        for later in range(self._base + 1, self._base + MOST_HITS + 1):
            for standing in self._main.since((later,)):
                if standing[0] > later or standing[1] > item.number:
                    break
                passed.append(standing)
        for _, _, key in sorted(passed, key=lambda standing: standing[1]):
            other = self._items[key]
            self._leave(other)
            other.hits, other.number = other.hits - 1, self._next()
            self._stand(key, other)

    def _remember(self, key: Key, nbytes: int) -> None:
        self._ghosts[key] = nbytes
        self._ghost_bytes += nbytes
        room = (1 - SMALL_SHARE) * sum(self._bytes)
        while self._ghosts and (self._ghost_bytes > room or len(self._ghosts) > GHOSTS):
            self._ghost_bytes -= self._ghosts.popitem(last=False)[1]
