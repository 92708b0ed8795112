"""Threads that take their work from one list."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from trims.disk.crew import Tally, share


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_each_item_is_taken_once(threads: int) -> None:
    taken: Counter[int] = Counter()
    lock = threading.Lock()

    def work(items: Iterator[int]) -> None:
        for item in items:
            with lock:
                taken[item] += 1

    share(range(100), work, threads, "test")
    assert taken == Counter(range(100))


def test_a_failure_ends_it_for_all_and_is_raised() -> None:
    caller = threading.current_thread()
    failing: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    after: list[int] = []

    def work(items: Iterator[int]) -> None:
        if threading.current_thread() is not caller:
            failing.put(threading.current_thread())
            raise OSError("the first")
        next(items)
        failing.get().join()
        after.extend(items)
        raise ValueError("the second")

    with pytest.raises(OSError, match="the first"):
        share(range(100), work, 2, "test")
    assert after == []


def test_a_tally_tells_the_sum_one_thread_at_a_time() -> None:
    told: list[int] = []
    tally = Tally(told.append)

    def work(items: Iterator[int]) -> None:
        for item in items:
            tally.add(item)

    share(itertools.repeat(3, 100), work, 4, "test")
    assert told == list(range(3, 303, 3))


def test_a_tally_that_nobody_listens_to() -> None:
    Tally(None).add(1)
