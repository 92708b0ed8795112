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

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

Job = TypeVar("Job")


class Sharing(Generic[Job]):
    """Jobs of one resource. `due`: when the next one ends if nothing changes before, inf while there is none.

    speed: (jobs, background) -> speed of each job, in (0, 1] of a job alone; it is asked once for each pair.
    """

    __slots__ = ("_at", "_background", "_heap", "_number", "_rate", "_rates", "_speed", "_tables", "_virtual", "due")

    def __init__(self, speed: Callable[[int, int], float]) -> None:
        self._speed = speed
        self._tables: dict[int, list[float]] = {}
        self._heap: list[tuple[float, int, Job]] = []
        self._at = self._virtual = 0.0
        self._rate = 1.0
        self._background = self._number = 0
        self._rates = self._table(0)
        self.due = inf

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, now: float, work: float, job: Job) -> None:
        """`job` begins; alone it would take `work` >= 0 seconds. `now` never goes back."""
        heap = self._heap
        if heap:
            virtual = self._virtual + (now - self._at) * self._rate
        else:
            virtual = 0.0  # nothing refers to it: keep its digits
        self._at, self._virtual = now, virtual
        self._number += 1
        heappush(heap, (virtual + work, self._number, job))
        n = len(heap)
        self._rate = rate = self._rates[n] if n < len(self._rates) else self._new(n)
        left = heap[0][0] - virtual
        self.due = now + left / rate if left > 0.0 else now

    def pop(self) -> Job:
        """End the job that is due, at the time `due`, and give it. Raises IndexError while there is none."""
        heap = self._heap
        virtual, _, job = heappop(heap)
        self._at, self._virtual = self.due, virtual
        if heap:
            self._rate = rate = self._rates[len(heap)]
            self.due += (heap[0][0] - virtual) / rate
        else:
            self.due = inf
        return job

    def surround(self, now: float, background: int) -> None:
        """From now on so much goes on beside the jobs."""
        if background == self._background:
            return
        self._virtual += (now - self._at) * self._rate
        self._at, self._background = now, background
        self._rates = self._table(background)
        heap = self._heap
        if heap:
            n = len(heap)
            self._rate = rate = self._rates[n] if n < len(self._rates) else self._new(n)
            self.due = now + max(0.0, heap[0][0] - self._virtual) / rate

    def _table(self, background: int) -> list[float]:
        """Speeds by number of jobs, as far as they were needed."""
        return self._tables.setdefault(background, [1.0])

    def _new(self, n: int) -> float:
        """The speed of n jobs, n being more than ever with this background."""
        rates = self._rates
        while len(rates) <= n:
            rates.append(self._speed(len(rates), self._background))
        return rates[n]
