"""The clients of a simulated run: who takes which request of the stream when.

In a closed loop each takes the next entry when it is free. Of open arrivals each is taken by the free client of the
lowest number; those that find none wait in order.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Protocol

from trims.workload.plan import Stream

Watch = Callable[[int], None]
"""Called now and then with the number of requests that are done."""
_EVERY = 4096


class Asked(Protocol):
    """Where the time of asking is written, by request."""

    asked: list[float]


class Clientele:
    """The clients of one stream. start: called with (time, request, client) when a client takes a request."""

    def __init__(
        self, stream: Stream, table: Asked, start: Callable[[float, int, int], None], watch: Watch | None
    ) -> None:
        self._asked, self._start, self._watch = table.asked, start, watch
        self._n, self._clients = len(stream), stream.clients
        self._at: list[float] | None = None if stream.at is None else stream.at.tolist()
        self._taken = self._ended = 0
        self._idle: list[int] = []
        self._line: deque[int] = deque()

    def serve(self, due: Callable[[], float], step: Callable[[], None]) -> None:
        """Have every request served. due: when the next event is, inf for none; step: let it happen."""
        if self._at is None:
            for client in range(self._clients):
                self._take(0.0, client)
        else:
            self._idle = list(range(self._clients))
            for request, at in enumerate(self._at):
                while due() <= at:
                    step()
                self._arrive(request, at)
        while due() < inf:
            step()

    def next(self, now: float, client: int) -> None:
        """`client` is free."""
        self._ended += 1
        if self._watch is not None and not self._ended % _EVERY:
            self._watch(self._ended)
        if self._at is None:
            self._take(now, client)
        elif self._line:
            self._start(now, self._line.popleft(), client)
        else:
            heapq.heappush(self._idle, client)

    def _arrive(self, request: int, at: float) -> None:
        self._asked[request] = at
        if self._idle:
            self._start(at, request, heapq.heappop(self._idle))
        else:
            self._line.append(request)

    def _take(self, now: float, client: int) -> None:
        if self._taken < self._n:
            request = self._taken
            self._taken += 1
            self._asked[request] = now
            self._start(now, request, client)
