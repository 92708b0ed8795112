"""What every eviction policy promises, run on each one registered, and on one that weighs size and cost."""

from __future__ import annotations

import sys
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
        st.sampled_from(["insert", "insert", "hit", "hold", "release", "remove", "look"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 5),
    ),
    max_size=60,
)


def play(policy: Policy, script: list[tuple[str, str, int]]) -> list[list[Key]]:
    """Do what of `script` is allowed; after each step check the promise, and note the order."""
    there: dict[Key, bool] = {}
    orders = []
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


def work(action: Callable[[], Any]) -> int:
    """How many bytecodes `action` runs, and how often a key is hashed or compared: its cost, on any machine."""
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


def cost(make: Callable[[], Policy], many: int) -> int:
    """The work of one of each call, with `many` keys there."""
    policy = make()
    keys = [Key(f"{n:08}", "raw", "host") for n in range(many)]
    for n, k in enumerate(keys):
        policy.insert(k, n % 7 + 1, 1.0, float(n))
    middle, last, new = keys[many // 2], keys[-1], Key("new", "raw", "host")

    def all_of_it() -> None:
        policy.hit(middle, many + 1.0)
        policy.hold(middle)
        policy.release(middle, many + 2.0)
        policy.insert(new, 3, 1.0, many + 3.0)
        policy.remove(last)
        plan_room(9, 0, 0, 10 * many, ((k, 3) for k in policy.victims(many + 4.0)))

    return work(all_of_it)


@registered
def test_a_decision_costs_what_it_yields_not_what_there_is(make: Callable[[], Policy]) -> None:
    small, large = cost(make, 64), cost(make, 16384)
    # log2 grows from 6 to 14; anything linear would grow 256-fold.
    assert large <= 3 * small, f"{small} steps with 64 keys, {large} with 16384"


def test_the_cost_test_can_fail() -> None:
    class Slow(POLICIES["lru"]):  # type: ignore[misc, name-defined]
        def hit(self, key: Key, now: float) -> None:
            for _ in self.victims(now):
                pass

    assert cost(Slow, 16384) > 3 * cost(Slow, 64)


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
