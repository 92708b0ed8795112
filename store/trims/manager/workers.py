"""Slow work in threads, and the one way back: a queue that wakes the loop, which runs what it finds there.

Whatever a thread learns reaches the loop as a call made *by the loop*; threads change nothing that the loop owns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

from trims.errors import TrimsError

T = TypeVar("T")


class Mailbox:
    """Calls for the loop to make. `fd` is readable while there are any."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop make this call. From any thread."""
        self._calls.put(call)
        try:
            os.eventfd_write(self.fd, 1)
        except (OSError, ValueError):
            pass  # the loop is over: nobody waits for this any more

    def deliver(self, make: Callable[[Callable[[], None]], None] = lambda call: call()) -> None:
        """Make the calls that are there, each by way of `make`. In the loop only."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        for _ in range(self._calls.qsize()):
            try:
                make(self._calls.get_nowait())
            except Empty:
                return

    def close(self) -> None:
        os.close(self.fd)
        self.fd = -1


class Pool:
    """A few threads that take work in order."""

    def __init__(self, mailbox: Mailbox, name: str, threads: int) -> None:
        self._mailbox = mailbox
        self._executor = ThreadPoolExecutor(threads, f"trims-{name}")

    def run(self, work: Callable[[], T], done: Callable[[T | BaseException], None]) -> None:
        """Call `work` in a thread, then have the loop call `done` with what it returned or raised."""

        def task() -> None:
            outcome: T | BaseException
            try:
                outcome = work()
            except BaseException as error:
                outcome = error.with_traceback(None) if isinstance(error, TrimsError) else error
            self._mailbox.post(lambda: done(outcome))

        self._executor.submit(task)

    def close(self) -> None:
        """Let what runs come to its end; what has not begun never begins."""
        self._executor.shutdown(wait=True, cancel_futures=True)
