"""Several models planned together: each finds the room that those before it would leave, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.residency_script import FOREVER, Script, items, key
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import ManagerUnreachable, NoRoom, TrimsError
from trims.residency.effects import Free
from trims.residency.events import PolicyAsked
from trims.residency.foreseeing import Foresight
from trims.residency.policies import make


class Plan:
    """A sequence of questions to the machine of `script`."""

    def __init__(self, script: Script) -> None:
        self.script, self.seen = script, dict[str, Foresight]()

    def warm(self, model: str, nbytes: int, evict: bool = True) -> dict[str, Any]:
        return self.script.machine.foresee(self.seen, key(model), f"{model}:latest", nbytes, evict)

    def victims(self, model: str, nbytes: int) -> list[str]:
        return [victim["ref"][0] for victim in self.warm(model, nbytes)["victims"]]


def filled(*sizes: int, budget: int = 10) -> Script:
    """Idle models a, b, ... of these sizes, a unused for longest."""
    script = Script(budget)
    for name, nbytes in zip("abcdefgh", sizes, strict=False):
        script.resident(name, nbytes=nbytes)
    return script


def test_each_finds_the_room_that_those_before_it_leave() -> None:
    plan = Plan(filled(3, 3, 3))
    assert plan.victims("x", 3) == ["a"]  # 1 was free: 1 is left
    assert plan.victims("y", 2) == ["b"]  # 2 are left
    assert plan.victims("z", 2) == []
    assert plan.victims("w", 3) == ["c"]
    with pytest.raises(NoRoom, match="those before it take 10B; then 0B are free and 0B can be evicted, it needs 1B"):
        plan.warm("v", 1)
    assert [r.key.digest[0] for r in plan.script.machine.residencies()] == ["a", "b", "c"]


def test_what_cannot_be_met_takes_nothing_from_those_behind_it() -> None:
    plan = Plan(filled(3, 3, 3))
    with pytest.raises(NoRoom):
        plan.warm("x", 11)
    item = plan.warm("y", 4)
    assert (item["need"], item["free"], len(item["victims"])) == (4, 1, 1)


def test_what_is_asked_for_and_there_goes_last() -> None:
    plan = Plan(filled(3, 3, 3))
    assert plan.warm("a", 3)["outcome"] == "already"
    assert plan.victims("x", 3) == ["b"] and plan.victims("y", 3) == ["c"]
    assert plan.victims("z", 3) == ["a"]  # it was used last, but nothing protects it


def test_the_same_twice_takes_room_once_and_a_victim_asked_for_has_to_be_loaded_again() -> None:
    plan = Plan(filled(5, 5))
    assert plan.victims("x", 5) == ["a"] and plan.warm("x", 5)["need"] == 0
    item = plan.warm("a", 5)
    assert (item["outcome"], item["need"], [v["ref"] for v in item["victims"]]) == ("would-warm", 5, ["b:latest"])


def test_nobody_is_evicted_who_was_not_to_be() -> None:
    script = filled(4, 4)
    script.attach("a", 4)
    plan = Plan(script)
    with pytest.raises(NoRoom):
        plan.warm("x", 3, evict=False)
    with pytest.raises(NoRoom) as caught:
        plan.warm("x", 8)
    assert caught.value.details["blockers"][0]["ref"] == "a:latest"  # type: ignore[index]
    assert plan.victims("x", 6) == ["b"]


def test_policies_have_their_way() -> None:
    def by(policy: str) -> Plan:
        script = filled(3, 3, 3)
        script.tell(PolicyAsked(1, 99, FOREVER, make(policy)))
        return Plan(script)

    flush = by("flush")
    assert flush.victims("x", 2) == ["a", "b", "c"] and flush.victims("y", 8) == []
    with pytest.raises(NoRoom, match="nothing is evicted"):
        by("never").warm("x", 2)
    assert by("never").warm("x", 1)["need"] == 1


def test_a_place_that_there_is_not_and_a_manager_that_stops() -> None:
    script = filled(3)
    with pytest.raises(TrimsError, match="there is no place moon"):
        script.machine.foresee({}, key("x", place="moon"), "x:latest", 1, True)
    script.attach("a", 3)
    script.stop()
    with pytest.raises(ManagerUnreachable):
        Plan(script).warm("x", 1)


@given(
    sizes=st.lists(st.integers(1, 5), max_size=6),
    wanted=st.lists(
        st.tuples(st.sampled_from("abcdxyz"), st.integers(1, 6)), min_size=1, max_size=6, unique_by=lambda t: t[0]
    ),
)
def test_what_is_foreseen_is_what_happens(sizes: list[int], wanted: list[tuple[str, int]]) -> None:
    """Asked for in the same order at once, the same victims go; up to the first that finds no room."""
    while sum(sizes) > 10:
        sizes = sizes[:-1]
    plan, real = Plan(filled(*sizes)), filled(*sizes)
    for number, (model, nbytes) in enumerate(wanted):
        try:
            foreseen = plan.warm(model, nbytes)
        except NoRoom:
            return
        if number == 0:
            assert items(real.warm(model, nbytes, dry_run=True)) == (foreseen,)
        done = real.warm(model, nbytes)
        gone = [effect.key.digest[0] for effect in done if isinstance(effect, Free)]
        if any(victim["ref"][0] in dict(wanted) for victim in foreseen["victims"]):
            return  # a victim that is wanted as well waits until it is gone
        assert gone == [victim["ref"][0] for victim in foreseen["victims"]]
        for name in gone:
            real.freed(name)
