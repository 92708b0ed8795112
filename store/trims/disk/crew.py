"""Threads that take their work from one list: the first failure ends it for all, and is raised."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def share(items: Iterable[T], work: Callable[[Iterator[T]], None], threads: int, name: str) -> None:
    """Call `work` in this thread and in `threads` - 1 others, each with an iterator over what nobody has taken yet."""
    left, lock = iter(items), threading.Lock()
    failures: list[BaseException] = []

    def taken() -> Iterator[T]:
        while True:
            with lock:
                if failures:
                    return
                try:
                    item = next(left)
                except StopIteration:
                    return
            yield item

    def guarded() -> None:
        try:
            work(taken())
        except BaseException as error:
            with lock:
                failures.append(error)

    others = [threading.Thread(target=guarded, name=name) for _ in range(threads - 1)]
    for other in others:
        other.start()
    guarded()
    for other in others:
        other.join()
    if failures:
        raise failures[0]


class Tally:
    """A sum that threads add to; `told`, if there is one, is called with it each time, one thread at a time."""

    def __init__(self, told: Callable[[int], None] | None) -> None:
        self._told, self._lock, self._sum = told, threading.Lock(), 0

    def add(self, n: int) -> None:
        with self._lock:
            self._sum += n
            if self._told:
                self._told(self._sum)
