"""A sorted set of tuples: add, remove and find in O(log n) comparisons, iterate in order from anywhere.

Sorted blocks of at most 2 * BLOCK entries, and the last entry of each. An entry is found by bisection of the lasts and
then of one block, so that what is moved in memory is at most one block; a block that grows too large is split, one that
shrinks is joined to its neighbour. Nothing stale is ever kept, so nothing has to be cleaned up. (A heap with lazy
deletion is the usual choice; but here looking at many entries in order must neither change anything nor meet stale
ones, and a heap gives neither.)
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

BLOCK = 256

Entry = TypeVar("Entry", bound=tuple[Any, ...])


class Ordered(Generic[Entry]):
    """Entries that differ from each other, least first. A change ends every iteration that is under way."""

    __slots__ = ("_blocks", "_lasts")

    def __init__(self) -> None:
        self._blocks: list[list[Entry]] = []
        self._lasts: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Take up `entry`, which is not there yet."""
        if not self._blocks:
            self._blocks, self._lasts = [[entry]], [entry]
            return
        n = min(bisect_left(self._lasts, entry), len(self._lasts) - 1)
        block = self._blocks[n]
        insort(block, entry)
        self._lasts[n] = block[-1]
        if len(block) > 2 * BLOCK:
            self._blocks[n : n + 1] = [block[:BLOCK], block[BLOCK:]]
            self._lasts.insert(n, block[BLOCK - 1])

    def remove(self, entry: Entry) -> None:
        """Take out `entry`, which is there."""
        n = bisect_left(self._lasts, entry)
        block = self._blocks[n]
        del block[bisect_left(block, entry)]
        if not block:
            del self._blocks[n], self._lasts[n]
            return
        self._lasts[n] = block[-1]
        if len(block) < BLOCK // 4:
            self._join(n)
            self._join(n - 1)

    def _join(self, n: int) -> None:
        """Make one of the blocks n and n + 1, if there are such and both are small."""
        if 0 <= n < len(self._blocks) - 1 and len(self._blocks[n]) + len(self._blocks[n + 1]) <= BLOCK // 2:
            self._blocks[n] += self._blocks.pop(n + 1)
            del self._lasts[n]

    def since(self, start: tuple[Any, ...]) -> Iterator[Entry]:
        """The entries that are not less than `start`, in order."""
        n = bisect_left(self._lasts, start)
        if n == len(self._lasts):
            return
        block = self._blocks[n]
        yield from block[bisect_left(block, start) :]
        for later in range(n + 1, len(self._blocks)):
            yield from self._blocks[later]

    def __iter__(self) -> Iterator[Entry]:
        for block in self._blocks:
            yield from block

    def __len__(self) -> int:
        return sum(map(len, self._blocks))

    def __bool__(self) -> bool:
        return bool(self._blocks)
