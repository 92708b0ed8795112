"""Timers, leases, history and the transition table, each alone."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
from helpers.residency_script import key
from hypothesis import given
from hypothesis import strategies as st

from trims.residency.events import Who
from trims.residency.history import LATEST, LINES, MODELS, Cause, History
from trims.residency.leases import Leases
from trims.residency.states import ABSENT, DOOMED, LOADING, RESIDENT, TABLE, next_state
from trims.residency.timers import Timers

WHO = Who(1, 2, 3)


@given(
    st.lists(
        st.tuples(st.sampled_from(["set", "clear", "due"]), st.integers(0, 5), st.sampled_from([1.0, 2.0, 3.0, 9.0])),
        max_size=60,
    )
)
def test_timers_do_what_a_plain_dictionary_would(steps: list[tuple[str, int, float]]) -> None:
    timers, plain = Timers(), dict[tuple[int], float]()
    for what, name, when in steps:
        if what == "set":
            timers.set((name,), when)
            plain[(name,)] = when
        elif what == "clear":
            timers.clear((name,))
            plain.pop((name,), None)
        else:
            due = timers.pop_due(when)
            assert sorted(due) == sorted(n for n, t in plain.items() if t <= when)
            assert [plain[n] for n in due] == sorted(plain[n] for n in due)  # type: ignore[index]
            plain = {n: t for n, t in plain.items() if t > when}
        assert timers.next() == min(plain.values(), default=None)


def test_timers_do_not_outgrow_what_they_hold() -> None:
    timers = Timers()
    for n in range(10_000):
        timers.set(("one",), float(n))
    assert len(timers._heap) < 100
    assert timers.next() == 9999.0
    timers.set(("one",), float("inf"))
    assert timers.next() is None


def test_a_lease_is_given_back_by_its_own_connection_only() -> None:
    leases = Leases()
    first, second = leases.grant(1, key("a"), WHO, 0.0), leases.grant(2, key("a"), WHO, 1.0)
    assert leases.release(2, first.lease) is None
    assert leases.release(1, first.lease) is first
    assert leases.release(1, first.lease) is None
    assert list(leases.of(key("a"))) == [second]
    leases.check()


def test_a_connection_ends_with_all_its_leases() -> None:
    leases = Leases()
    mine = [leases.grant(1, key(m), WHO, 0.0) for m in "aba"]
    other = leases.grant(2, key("a"), WHO, 0.0)
    assert leases.close(1) == mine
    assert list(leases) == [other] and leases.count(key("b")) == 0
    leases.check()
    leases.close(2)
    assert not leases


def test_lease_numbers_are_never_used_twice() -> None:
    leases = Leases()
    leases.grant(1, key("a"), WHO, 0.0)
    leases.close(1)
    assert leases.grant(1, key("a"), WHO, 0.0).lease == 2


def test_every_state_can_be_left_and_ends_in_absent() -> None:
    states = {ABSENT, LOADING, RESIDENT, DOOMED}
    assert {state for state, _ in TABLE} == set(TABLE.values()) == states
    for start in states:
        seen, todo = {start}, deque([start])
        while todo:
            state = todo.popleft()
            for (origin, _), target in TABLE.items():
                if origin == state and target not in seen:
                    seen.add(target)
                    todo.append(target)
        assert seen == states


@pytest.mark.parametrize("what", ["loaded", "freed", "given up", "failed", "abandoned"])
def test_nothing_but_a_promise_leaves_absent(what: str) -> None:
    assert next_state(ABSENT, what) is None


def test_the_page_shows_the_table_as_it_is() -> None:
    page = (Path(__file__).parents[2] / "docs" / "residency.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| *"]
    states = [ABSENT, LOADING, RESIDENT, DOOMED]
    shown = {
        (state, row[0].split("**")[1]): cell.split()[0]
        for row in rows
        for state, cell in zip(states, row[1:], strict=True)
        if cell != "-"
    }
    assert shown == TABLE


def test_history_is_bounded_in_models_in_lines_and_as_a_whole() -> None:
    history = History()
    for n in range(MODELS + 10):
        for line in range(LINES + 5):
            history.tell(key(f"m{n}"), f"m{n}:latest", float(line), "loaded", Cause("x"))
    assert history.of(key("m0").digest) == []
    last = key(f"m{MODELS}").digest
    assert [h.time for h in history.of(last)] == [float(line) for line in range(5, LINES + 5)]
    assert len(history.of()) == LATEST and history.of()[-1].digest == key(f"m{MODELS + 9}").digest
