"""Named times to wake up at: set, clear, pop what is due. All O(log n) amortised.

A heap with lazy deletion: a cleared or moved timer leaves its old entry behind, which is dropped when it surfaces;
when stale entries outnumber live ones threefold the heap is rebuilt, so it never outgrows what it holds.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import Any

FOREVER = float("inf")

Name = tuple[Any, ...]
"""What a timer is for, as (kind, ...)."""


class Timers:
    """Times by name. `inf` is no time: setting it clears."""

    __slots__ = ("_heap", "_number", "_times")

    def __init__(self) -> None:
        self._times: dict[Name, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, Name]] = []
        self._number = count()

    def set(self, name: Name, when: float) -> None:
        if when == FOREVER:
            self.clear(name)
            return
        number = next(self._number)
        self._times[name] = (when, number)
        heapq.heappush(self._heap, (when, number, name))
        if len(self._heap) > 64 + 4 * len(self._times):
            self._heap = [(at, n, key) for key, (at, n) in self._times.items()]
            heapq.heapify(self._heap)

    def clear(self, name: Name) -> None:
        self._times.pop(name, None)

    def get(self, name: Name) -> float:
        """When it is due; inf when it is not set."""
        found = self._times.get(name)
        return found[0] if found else FOREVER

    def next(self) -> float | None:
        """The earliest time, or None."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> list[Name]:
        """The names that are due, earliest first; they are cleared."""
        due: list[Name] = []
        if not self._heap or self._heap[0][0] > now:
            return due
        self._drop_stale()
        while self._heap and self._heap[0][0] <= now:
            name = heapq.heappop(self._heap)[2]
            del self._times[name]
            due.append(name)
            self._drop_stale()
        return due

    def _drop_stale(self) -> None:
        while self._heap:
            when, number, name = self._heap[0]
            if self._times.get(name) == (when, number):
                return
            heapq.heappop(self._heap)
