"""What every eviction policy promises, run on each one registered, and on one that weighs size and cost."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest
from helpers.residency_script import key
from hypothesis import given
from hypothesis import strategies as st

from trims.residency.events import Key
from trims.residency.policy import POLICIES, Policy, Room, plan_room


class Cheapest(Policy):
    """Least reload seconds a byte first: shows that the interface carries what such policies need."""

    name = "cheapest"

    def __init__(self) -> None:
        self._rank: dict[Key, float] = {}
        self._idle: dict[Key, float] = {}

    def fresh(self) -> Self:
        return type(self)()

    def insert(self, key: Key, nbytes: int, load_seconds: float, now: float) -> None:
        self._rank[key] = self._idle[key] = load_seconds / max(1, nbytes)

    def hit(self, key: Key, now: float) -> None:
        self._rank[key] *= 2
        if key in self._idle:
            self._idle[key] = self._rank[key]

    def hold(self, key: Key) -> None:
        del self._idle[key]

    def release(self, key: Key, now: float) -> None:
        self._idle[key] = self._rank[key]

    def remove(self, key: Key) -> None:
        del self._rank[key]
        self._idle.pop(key, None)

    def victims(self, now: float) -> Iterator[Key]:
        return iter(sorted(self._idle, key=lambda k: (self._idle[k], k)))

    def __len__(self) -> int:
        return len(self._rank)


ALL: dict[str, Callable[[], Policy]] = {**POLICIES, "cheapest": Cheapest}
every = pytest.mark.parametrize("make", ALL.values(), ids=list(ALL))
registered = pytest.mark.parametrize("make", POLICIES.values(), ids=list(POLICIES))

steps = st.lists(
    st.tuples(
        st.sampled_from(["insert", "insert", "hit", "hold", "release", "remove", "evict", "evict", "look"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 5),
    ),
    max_size=60,
)


def play(policy: Policy, script: list[tuple[str, str, int]], look: bool = True) -> list[list[Key]]:
    """Do what of `script` is allowed; after each step check the promise, and note the order (or only at the end)."""
    there: dict[Key, bool] = {}
    orders: list[list[Key]] = []
    for now, (what, model, size) in enumerate(script):
        k, at = key(model), float(now)
        if what == "insert" and k not in there:
            policy.insert(k, size, size / 2, at)
            there[k] = True
        elif what == "hit" and k in there:
            policy.hit(k, at)
        elif what == "hold" and there.get(k):
            policy.hold(k)
            there[k] = False
        elif what == "release" and there.get(k) is False:
            policy.release(k, at)
            there[k] = True
        elif what == "remove" and k in there:
            policy.remove(k)
            del there[k]
        elif what == "evict" and any(there.values()):
            victim = next(policy.victims(at))
            policy.chosen(victim)
            policy.remove(victim)
            del there[victim]
            orders.append([victim])
        if not look and now < len(script) - 1:
            continue
        order = list(policy.victims(at))
        assert sorted(order) == sorted(k for k, idle in there.items() if idle), "yields what is held, or misses some"
        assert order == list(policy.victims(at)), "looking changes the order"
        assert len(policy) == len(there)
        orders.append(order)
    return orders


@every
@given(script=steps)
def test_it_yields_exactly_what_may_go_and_looking_changes_nothing(
    make: Callable[[], Policy], script: list[tuple[str, str, int]]
) -> None:
    play(make(), script)


@every
@given(script=steps)
def test_who_never_looked_sees_the_same_end(make: Callable[[], Policy], script: list[tuple[str, str, int]]) -> None:
    seen, unseen = play(make(), script), play(make(), script, look=False)
    assert seen[-1:] == unseen[-1:]


@every
@given(script=steps)
def test_the_same_story_gives_the_same_order_also_in_a_fresh_one(
    make: Callable[[], Policy], script: list[tuple[str, str, int]]
) -> None:
    policy = make()
    first = play(policy, script)
    assert play(policy.fresh(), script) == first
    assert play(make(), script) == first


@every
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8), need=st.integers(1, 40))
def test_a_plan_with_it_is_all_or_nothing(make: Callable[[], Policy], sizes: list[int], need: int) -> None:
    policy = make()
    of = {key(chr(97 + n)): size for n, size in enumerate(sizes)}
    for now, (k, size) in enumerate(of.items()):
        policy.insert(k, size, 1.0, float(now))
    before = list(policy.victims(99.0))
    outcome = plan_room(need, 0, 0, sum(sizes), ((k, of[k]) for k in policy.victims(99.0)))
    assert list(policy.victims(99.0)) == before
    if isinstance(outcome, Room):
        gain = [of[k] for k in outcome.victims]
        assert sum(gain) >= need
        assert all(sum(gain) - n < need for n in gain), "one victim too many"
    else:
        assert sum(sizes) < need


class Counted(Key):
    """A key whose every hashing and comparing is a step of its own, also where C code does it."""

    def __hash__(self) -> int:
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(other)

    def __lt__(self, other: Any) -> bool:
        return super().__lt__(other)


def work(action: Callable[[], Any]) -> int:
    """How many bytecodes `action` runs, those of hashing and comparing keys included: its cost, on any machine."""
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
    return count


def allocated(action: Callable[[], Any]) -> int:
    """The most memory that `action` had at once beyond what was there: a copy of what there is would show."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        action()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def with_many(make: Callable[[], Policy], many: int) -> tuple[Policy, list[Key]]:
    """A policy with `many` keys, half of them hit."""
    policy = make()
    keys: list[Key] = [Counted(f"{n:08}", "raw", "host") for n in range(many)]
    for n, k in enumerate(keys):
        policy.insert(k, n % 7 + 1, 1.0, float(n))
        if n % 2:
            policy.hit(k, float(n))
    return policy, keys


def one_of_each(make: Callable[[], Policy], many: int) -> Callable[[], None]:
    """One of each call, with `many` keys there, and a decision that takes a few victims."""
    policy, keys = with_many(make, many)
    middle, last, new = keys[many // 2], keys[-1], Counted("new", "raw", "host")

    def all_of_it() -> None:
        policy.hit(middle, many + 1.0)
        policy.hold(middle)
        policy.release(middle, many + 2.0)
        policy.insert(new, 3, 1.0, many + 3.0)
        policy.remove(last)
        plan_room(9, 0, 0, 10 * many, ((k, 3) for k in policy.victims(many + 4.0)))

    return all_of_it


@registered
def test_a_decision_costs_what_it_yields_not_what_there_is(make: Callable[[], Policy]) -> None:
    small, large = work(one_of_each(make, 64)), work(one_of_each(make, 8192))
    # log2 grows from 6 to 13; anything linear would grow 128-fold.
    assert large <= 3 * small, f"{small} steps with 64 keys, {large} with 8192"
    assert allocated(one_of_each(make, 8192)) < 32 << 10, "a list of all keys is twice as large"


@registered
def test_evicting_all_of_them_costs_each_no_more_than_a_search(make: Callable[[], Policy]) -> None:
    """Also where one victim lets many others move: what moves has been paid for by a hit."""

    def each(many: int) -> float:
        policy, _ = with_many(make, many)

        def drain() -> None:
            for _ in range(many):
                victim = next(policy.victims(1e9))
                policy.chosen(victim)
                policy.remove(victim)

        return work(drain) / many

    small, large = each(32), each(512)
    assert large <= 2 * small, f"{small:.0f} steps a victim with 32 keys, {large:.0f} with 512"


class Slow(POLICIES["lru"]):  # type: ignore[misc, name-defined]
    def release(self, key: Key, now: float) -> None:
        super().release(key, now)
        for _ in self.victims(now):
            pass


class Copying(POLICIES["lru"]):  # type: ignore[misc, name-defined]
    def victims(self, now: float) -> Iterator[Key]:
        return iter(list(super().victims(now)))


def test_the_cost_tests_can_fail() -> None:
    assert work(one_of_each(Slow, 8192)) > 3 * work(one_of_each(Slow, 64))
    assert allocated(one_of_each(Copying, 8192)) > 32 << 10


def test_a_policy_is_found_by_its_own_name() -> None:
    assert all(policy.name == name for name, policy in POLICIES.items())
    assert "lru" in POLICIES


def test_lru_gives_up_what_was_let_go_longest_ago() -> None:
    lru = POLICIES["lru"]()
    for now, model in enumerate("abcd"):
        lru.insert(key(model), 1, 1.0, float(now))
    lru.hit(key("a"), 5.0)
    lru.hold(key("b"))
    lru.hold(key("c"))
    lru.release(key("c"), 6.0)
    lru.release(key("b"), 7.0)
    assert list(lru.victims(8.0)) == [key("d"), key("a"), key("c"), key("b")]
