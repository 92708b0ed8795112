"""Jobs that share one resource evenly: processor sharing as a fluid model, in virtual time; O(log n) for each change.

While n jobs run each of them proceeds at speed(n), which is 1 for a job alone. *Virtual* time is what a job that was
there from the beginning would have got done: it advances at speed(n) while real time advances at 1. A job of `work`
(seconds when alone) that joins at virtual time V is done when virtual time reaches V + work, however many join or leave
meanwhile. So the order of ends never changes and a heap of virtual ends suffices (Parekh and Gallager 1993 use the same
clock for fair queueing). Jobs that end together end in the order in which they came.

The same class is a machine's cores and a disk's bandwidth; they differ in speed(n) only. `background` is a number that
slows all jobs beside themselves, as loads that take processor time do.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Sharing(Generic[Job]):
    """Jobs of one resource. `due`: when the next one ends if nothing changes before, inf while there is none.

    speed: (jobs, background) -> speed of each job, in (0, 1] of a job alone; it is asked once for each pair.
    """

    __slots__ = ("_at", "_background", "_heap", "_known", "_number", "_rate", "_speed", "_virtual", "due")

    def __init__(self, speed: Callable[[int, int], float]) -> None:
        self._speed = speed
        self._known: dict[tuple[int, int], float] = {}
        self._heap: list[tuple[float, int, Job]] = []
        self._at = self._virtual = 0.0
        self._rate = 1.0
        self._background = self._number = 0
        self.due = inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, now: float, work: float, job: Job) -> None:
        """`job` begins; alone it would take `work` >= 0 seconds. `now` never goes back."""
        heap = self._heap
        if heap:
            self._virtual += (now - self._at) * self._rate
        else:
            self._virtual = 0.0  # nothing refers to it: keep its digits
        self._at = now
        self._number += 1
        heapq.heappush(heap, (self._virtual + work, self._number, job))
        self._settle()

    def pop(self) -> Job:
        """End the job that is due, at the time `due`, and give it. Raises IndexError while there is none."""
        end, _, job = heapq.heappop(self._heap)
        self._at, self._virtual = self.due, end
        self._settle()
        return job

    def surround(self, now: float, background: int) -> None:
        """From now on so much goes on beside the jobs."""
        if background == self._background:
            return
        self._virtual += (now - self._at) * self._rate
        self._at, self._background = now, background
        self._settle()

    def _settle(self) -> None:
        heap = self._heap
        if not heap:
            self.due = inf
            return
        pair = (len(heap), self._background)
        rate = self._known.get(pair)
        if rate is None:
            rate = self._known[pair] = self._speed(*pair)
        self._rate = rate
        left = heap[0][0] - self._virtual
        self.due = self._at + left / rate if left > 0.0 else self._at
