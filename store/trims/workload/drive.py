"""One run under way: its clients are started, requests released to them, and what comes back is heard.

Requests are released by writing their numbers into one pipe: all of them at once for a closed loop (as far as the pipe
has room), each at its time for open arrivals, or one after another with something to be done before each. Clients that
are free take them in that order. The coordinator sleeps in select between what it hears. A request under way for too
long, or a client that has died, is ended, its request has failed, and another client takes its place.
"""

from __future__ import annotations

import fcntl
import os
import struct
import termios
import time
from collections.abc import Callable
from selectors import EVENT_WRITE
from typing import Any

import numpy as np

from trims.errors import TrimsError
from trims.workload import board as boards
from trims.workload.board import Board
from trims.workload.clients import ClientProcess, Clients, spec
from trims.workload.plan import Stream
from trims.workload.setting import Setting
from trims.workload.world import World

Watch = Callable[[int, int], None]
"""Called with (requests that have ended, requests in all)."""

_GRACE = 5.0  # seconds beyond a request's own timeout after which its client is ended too
_DEATHS = 3  # clients that may die for each one started before the run is given up
_LOOK = 1.0  # seconds between two looks for what takes too long
_PAGES = 4096  # bytes: writes to a pipe up to this size are whole


class Drive:
    """One run under way. `board` is its table; `starts` the seconds until its clients were ready."""

    def __init__(
        self,
        stream: Stream,
        setting: Setting,
        models: list[dict[str, Any]],
        world: World,
        watch: Watch | None,
        before: Callable[[int], None] | None,
    ) -> None:
        self._stream, self._setting, self._watch, self._before = stream, setting, watch, before
        self.board = Board.make(stream.model)
        self._tickets, self._release = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._release, False)
        told = spec(setting, models, self.board.fd, self._tickets)
        self._clients = Clients(stream.clients, told, world.env)
        self._released = self._ended = self._deaths = 0
        self._told = -1
        self._suspects: set[int] = set()
        self._began = self.starts = 0.0

    def __enter__(self) -> Drive:
        started = time.monotonic()
        try:
            self._clients.__enter__()
        except BaseException:
            self._close()
            raise
        self.starts = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.__exit__()
        self._close()

    def _close(self) -> None:
        self.board.close()
        os.close(self._tickets)
        os.close(self._release)

    def reasons(self) -> dict[int, str]:
        """Why requests failed, by number."""
        (failed,) = np.nonzero(self.board.rows["state"][: len(self._stream)] == boards.FAILED)
        return {int(request): self.board.reason(int(request)) for request in failed}

    def serve(self) -> float:
        """Have all requests served; the moment at which the run began, on CLOCK_MONOTONIC."""
        self._began = time.monotonic()
        if self._stream.at is not None:
            self.board.rows["asked"][: len(self._stream)] = self._began + self._stream.at
        looked = self._began
        while self._ended < len(self._stream):
            self._release_due()
            for key, _ in self._clients.selector.select(self._patience()):
                if isinstance(key.data, ClientProcess):
                    self._hear(key.data)
            now = time.monotonic()
            if now - looked >= _LOOK:
                looked = now
                self._end_slow(now)
            self._count()
        return self._began

    # ---- requests out

    def _due(self) -> int:
        """How many requests may have been released by now."""
        if self._before is not None:
            return min(len(self._stream), self._ended + 1)
        if self._stream.at is None:
            return len(self._stream)
        return int(np.searchsorted(self._stream.at, time.monotonic() - self._began, side="right"))

    def _release_due(self) -> None:
        due = self._due()
        full = False
        while self._released < due and not full:
            count = min(due - self._released, _PAGES // 4)
            if self._before is not None:
                self._before(self._released)
            numbers = range(self._released, self._released + count)
            try:
                os.write(self._release, struct.pack(f"={count}i", *numbers))
                self._released += count
            except BlockingIOError:
                full = True
        self._want_room(full)

    def _want_room(self, wanted: bool) -> None:
        selector, registered = self._clients.selector, self._release in self._clients.selector.get_map()
        if wanted and not registered:
            selector.register(self._release, EVENT_WRITE, None)
        elif registered and not wanted:
            selector.unregister(self._release)

    def _patience(self) -> float:
        """Seconds to wait for something to happen."""
        if self._before is None and self._stream.at is not None and self._released < len(self._stream):
            due = self._began + float(self._stream.at[self._released])
            return max(0.0, min(_LOOK, due - time.monotonic()))
        return _LOOK

    # ---- what comes back

    def _hear(self, client: ClientProcess) -> None:
        if client.heard():
            client.ready = True
        else:
            why = self._clients.bury(client)
            self._fail_taken(client.number, why)
            self._deaths += 1
            if self._deaths > _DEATHS * self._stream.clients:
                raise TrimsError("the clients of the workload keep dying", why)
            self._clients.start(client.number)

    def _count(self) -> None:
        self._ended = int(np.count_nonzero(self.board.rows["state"][: len(self._stream)] >= boards.SERVED))
        if self._watch is not None and self._ended != self._told:
            self._told = self._ended
            self._watch(self._ended, len(self._stream))

    def _fail_taken(self, client: int, why: str) -> None:
        rows = self.board.rows
        for request in np.nonzero((rows["client"] == client) & (rows["state"] == boards.TAKEN))[0]:
            self.board.fail(int(request), why, time.monotonic())

    def _end_slow(self, now: float) -> None:
        """End clients whose request takes too long for its own timer, and release those again that got lost."""
        rows = self.board.rows[: len(self._stream)]
        late = (rows["state"] == boards.TAKEN) & (now - rows["taken"] > self._setting.timeout + _GRACE)
        for number in {int(number) for number in rows["client"][late]}:
            if number in self._clients.living:
                self._clients.living[number].kill()
        # A client that is killed between taking a number and noting it takes the number with it.
        waiting = set(np.nonzero(rows["state"][: self._released] == boards.WAITING)[0].tolist())
        lost = waiting if not self._queued() and self._deaths else set()
        again = sorted(lost & self._suspects)[: _PAGES // 4]
        if again:
            os.write(self._release, struct.pack(f"={len(again)}i", *again))  # the pipe is empty: it has room
        self._suspects = lost - set(again)

    def _queued(self) -> int:
        """Bytes of numbers that nobody has taken."""
        return int(struct.unpack("i", fcntl.ioctl(self._tickets, termios.FIONREAD, b"\0\0\0\0"))[0])
