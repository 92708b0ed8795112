"""Planning room, the line, promises, spare pages and what others take."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from helpers.residency_script import FOREVER, Script, acts, cancel, free, key, load, logs, refusal
from hypothesis import given
from hypothesis import strategies as st

from trims.residency.effects import Grant, Refuse, ShrinkSpare
from trims.residency.events import AttachAsked, Key, Tick
from trims.residency.policy import Room, Shortage, plan_room


def models(*sizes: int) -> list[tuple[Key, int]]:
    return [(key(chr(ord("a") + i)), n) for i, n in enumerate(sizes)]


def plan(need: int, free: int, spare: int, *sizes: int) -> Room | Shortage:
    return plan_room(need, free, spare, sum(sizes), models(*sizes))


def test_what_fits_needs_nothing() -> None:
    assert plan(3, 3, 5, 4, 4) == Room()


def test_spare_pages_go_before_any_model() -> None:
    assert plan(5, 3, 4, 4, 4) == Room(2)


def test_victims_go_in_order() -> None:
    assert plan(7, 3, 0, 2, 2, 2) == Room(0, (key("a"), key("b")))


def test_victims_that_a_later_larger_one_makes_needless_stay() -> None:
    assert plan(8, 0, 0, 1, 2, 8, 5) == Room(0, (key("c"),))
    assert plan(9, 0, 0, 1, 2, 8, 5) == Room(0, (key("a"), key("c")))


def test_spare_pages_stay_where_a_victim_covers_for_them() -> None:
    assert plan(10, 0, 3, 8) == Room(2, (key("a"),))


def test_what_cannot_be_met_says_what_is_missing() -> None:
    assert plan(10, 1, 2, 3) == Shortage(4)
    assert plan(5, -3, 0) == Shortage(8)


def test_an_upper_bound_that_was_too_high_is_found_out() -> None:
    assert plan_room(10, 0, 0, 99, models(3, 4)) == Shortage(3)


def test_what_is_impossible_is_known_without_reading_the_order() -> None:
    def unread() -> Iterator[tuple[Key, int]]:
        raise AssertionError("the order was read")
        yield

    assert plan_room(20, 1, 2, 3, unread()) == Shortage(14)
    assert plan_room(3, 1, 2, 3, unread()) == Room(2)


@given(
    st.integers(0, 30),
    st.integers(-3, 10),
    st.integers(0, 5),
    st.lists(st.integers(0, 9), max_size=7),
)
def test_a_plan_is_enough_minimal_and_found_if_there_is_one(need: int, free: int, spare: int, sizes: list[int]) -> None:
    order = models(*sizes)
    outcome = plan_room(need, free, spare, sum(sizes), order)
    if isinstance(outcome, Shortage):
        assert free + spare + sum(sizes) + outcome.short == need
        return
    of = dict(order)
    gain = sum(of[k] for k in outcome.victims)
    assert free + outcome.spare + gain >= need
    assert 0 <= outcome.spare <= spare
    assert list(outcome.victims) == [k for k, _ in order if k in outcome.victims], "not in the policy's order"
    for n in range(len(outcome.victims)):
        for fewer in combinations(outcome.victims, n):
            assert free + spare + sum(of[k] for k in fewer) < need, "fewer would have done"


def test_the_load_goes_out_when_the_bytes_are_really_free() -> None:
    s = Script()
    s.resident("a", "b", nbytes=5)
    assert s.attach("c", 7) == [free("a"), free("b")]
    assert s.state("c") == "loading"
    assert s.freed("b") == []
    assert s.freed("a") == [load("c", 3, 7)]


def test_every_eviction_says_why_and_in_which_order() -> None:
    s = Script()
    s.resident("a", "b", nbytes=5)
    effects = s.tell(AttachAsked(1, 99, 60.0, key("c"), "c:latest", 7))
    assert logs(effects) == [
        "evict a:latest (5B) from host: room for c:latest (7B), asked by pid 101; lru, 1 of 2",
        "evict b:latest (5B) from host: room for c:latest (7B), asked by pid 101; lru, 2 of 2",
    ]


def test_the_least_recently_used_goes_first() -> None:
    s = Script()
    s.resident("a", "b", "c", nbytes=3)
    s.attach("a", 3)
    s.release("a")
    assert s.attach("d", 3) == [free("b")]


def test_what_is_over_the_budget_is_refused_at_once_and_touches_nothing() -> None:
    s = Script()
    s.resident("a")
    error = refusal(s.attach("big", 11))
    assert (error["code"], error["exit"]) == ("no-room", 20)
    assert "whole budget" in error["why"] and "larger budget" in error["hint"]
    assert s.state("a") == "resident"


def test_a_request_waits_for_room_and_gets_it() -> None:
    s = Script()
    s.attach("a", 6)
    s.loaded("a")
    assert s.attach("b", 6, conn=2) == []
    assert s.release("a") == [free("a")]
    assert s.freed("a") == [load("b", 2, 6)]
    assert s.loaded("b") == [Grant(2, 2, 2, key("b"), "loaded")]


def test_at_its_deadline_it_is_told_who_holds_what_and_nothing_was_evicted() -> None:
    s = Script()
    s.resident("idle", nbytes=2)
    s.attach("a", 5, conn=4)
    s.loaded("a")
    s.attach("b", 9, conn=2, wait=3)
    (answer,) = s.later(3)
    assert isinstance(answer, Refuse)
    assert answer.error["code"] == "no-room"
    assert answer.error["details"] == {
        "place": "host",
        "need": 9,
        "budget": 10,
        "free": 3,
        "evictable": 2,
        "young": 0,
        "blockers": [
            {
                "ref": "a:latest",
                "nbytes": 5,
                "why": "leased",
                "holders": [{"pid": 104, "uid": 1000, "job": "j4", "container": ""}],
                "pins": [],
            }
        ],
    }
    assert "a:latest (5B) is leased by pid 104 (job j4)" in str(answer.error["why"])
    assert s.state("idle") == "resident"


def test_pins_for_ever_are_not_waited_for() -> None:
    s = Script()
    s.pin("a", 6)
    s.loaded("a")
    error = refusal(s.attach("b", 6, conn=2))
    assert error["details"]["blockers"][0]["pins"] == [{"owner": "ann", "reason": "why not"}]
    s.unpin("a")
    s.pin("a", 6, expires=30)
    assert s.attach("b", 6, conn=2, wait=60) == [], "but pins that expire are"
    s.later(30)
    assert s.freed("a") == [load("b", 2, 6)]


def test_no_evict_uses_only_what_is_free() -> None:
    s = Script()
    s.resident("a", nbytes=6)
    assert refusal(s.warm("b", 6, evict=False))["code"] == "no-room"
    assert s.warm("c", 4, evict=False) == [load("c", 2, 4)]
    assert s.state("a") == "resident"


def test_first_come_first_served() -> None:
    s = Script()
    s.attach("a", 10)
    s.loaded("a")
    s.attach("b", 10, conn=2)
    s.attach("c", 10, conn=3)
    s.release("a")
    assert s.freed("a") == [load("b", 2, 10)]


def test_a_small_one_may_go_before_only_while_the_head_keeps_its_bytes() -> None:
    s = Script()
    s.attach("a", 5)
    s.loaded("a")
    assert s.attach("big", 8, conn=2) == []
    assert s.attach("s1", 1, conn=3) == [load("s1", 2, 1)]
    assert s.attach("s2", 1, conn=3) == [load("s2", 3, 1)]
    assert s.attach("s3", 1, conn=3) == [], "a third one would take the head's bytes"
    s.loaded("s1")
    s.loaded("s2")
    s.release("a")
    assert s.freed("a") == [load("big", 4, 8)]
    assert s.attach("s4", 1, conn=4) == []
    s.close(2)
    assert s.loads[4] is not None and s.load_done(4, fail=True) != []
    assert {k for k, _ in s.loads.values()} == {key("s3"), key("s4")}


def test_who_went_before_counts_anew_for_each_head() -> None:
    s = Script()
    s.attach("a", 5)
    s.loaded("a")
    s.attach("big", 8, conn=2)
    s.attach("s1", 1, conn=3)
    s.attach("s2", 1, conn=3)
    s.close(2)
    assert s.attach("big", 8, conn=4) == []
    assert s.attach("s3", 1, conn=3) == [load("s3", 4, 1)]


def test_the_head_is_not_starved_by_small_ones_that_come_and_go() -> None:
    s = Script()
    s.attach("a", 2)
    s.loaded("a")
    assert s.attach("big", 9, conn=2, wait=FOREVER) == []
    for n in range(20):
        s.attach(f"s{n}", 1, conn=3, wait=FOREVER)
        for number in list(s.loads):
            s.load_done(number)
    assert s.release("a")[0] == free("a")
    s.settle()
    assert s.state("big") == "resident"


def test_where_turns_end_nobody_holds_others_back_for_longer() -> None:
    """However it is asked for again; what waits on still gets the room when it is there."""
    s = Script(turn=5.0)
    s.attach("a", 2)
    s.loaded("a")
    s.attach("big", 9, conn=2, wait=FOREVER)
    assert s.attach("s1", 2, conn=3) == []
    s.later(4)
    assert s.attach("big", 9, conn=4, wait=FOREVER) == s.attach("big2", 9, conn=5, wait=FOREVER) == []
    s.close(2)
    assert s.state("s1") == "absent"
    s.later(1)
    assert s.state("s1") == "loading"
    s.loaded("s1")
    s.release("a")
    s.release("s1", conn=3)
    s.settle()
    assert s.state("big") == "resident"


def test_leaving_the_line_lets_the_next_one_go() -> None:
    s = Script()
    s.attach("a", 5)
    s.loaded("a")
    s.attach("big", 9, conn=2)
    assert s.attach("b", 4, conn=3) == []
    assert s.close(2) == [load("b", 2, 4)]


def test_a_promise_is_taken_back_when_its_asker_goes() -> None:
    s = Script()
    s.resident("a", nbytes=8)
    s.attach("b", 8)
    s.close(1)
    assert s.state("b") == "absent"
    assert s.freed("a") == [] and s.machine.use("host").used == 0


def test_promises_are_kept_in_order() -> None:
    s = Script()
    s.resident("a", "b", nbytes=5)
    s.attach("c", 5)
    s.attach("d", 4)
    assert s.freed("b") == [load("c", 3, 5)], "the bytes of any victim serve the first promise"
    assert s.freed("a") == [load("d", 4, 4)]


def test_spare_pages_are_shrunk_before_anything_is_evicted() -> None:
    s = Script()
    s.resident("a", nbytes=4)
    s.reserve("host", "spare", 4)
    assert s.attach("b", 5) == [ShrinkSpare("host", 3)]
    assert acts(s.shrink_done()) == [load("b", 2, 5)]
    assert s.state("a") == "resident"


def test_spare_pages_that_grew_again_are_asked_for_again() -> None:
    s = Script()
    s.resident("a", nbytes=4)
    s.reserve("host", "spare", 4)
    s.attach("b", 5)
    assert acts(s.reserve("host", "spare", 5)) == [ShrinkSpare("host", 4)]
    s.shrinks.pop(0)
    assert acts(s.shrink_done()) == [load("b", 2, 5)]


def test_regions_of_a_dead_manager_count_and_are_named() -> None:
    s = Script()
    s.reserve("host", "old manager 77", 7)
    s.attach("a", 5, wait=2)
    (answer,) = s.later(2)
    assert isinstance(answer, Refuse)
    assert answer.error["details"]["blockers"] == [  # type: ignore[index]
        {"ref": "old manager 77", "nbytes": 7, "why": "reserved", "holders": [], "pins": []}
    ]
    assert s.machine.use("host").reserved == 7
    assert s.attach("a", 5, wait=9) == []
    assert acts(s.reserve("host", "old manager 77", 0)) == [load("a", 1, 5)]


def test_memory_that_others_take_pushes_out_promises_then_idle_models() -> None:
    s = Script()
    s.resident("a", "b", nbytes=4)
    assert s.attach("c", 6) == [free("a")]
    assert acts(s.reserve("host", "orphan", 3)) == [free("b")], "the promise is planned again"
    s.freed("a")
    assert s.freed("b") == [load("c", 3, 6)]
    s.loaded("c")
    s.release("c")
    assert acts(s.reserve("host", "orphan", 6)) == [free("c")]


def test_a_promise_that_was_broken_keeps_its_turn() -> None:
    s = Script()
    s.resident("a", nbytes=8)
    assert s.attach("c", 8, conn=1) == [free("a")]
    s.attach("d", 8, conn=2)
    assert acts(s.reserve("host", "orphan", 4)) == []
    s.freed("a")
    assert acts(s.reserve("host", "orphan", 0)) == [load("c", 2, 8)]


def test_what_an_earlier_life_kept_does_not_overtake_who_waits() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    s.attach("big", 9, conn=2)
    assert s.restore("p", 2, "ann") == []
    assert s.close(2) == [load("p", 2, 2)]


def test_nothing_is_evicted_for_a_request_whose_time_is_up() -> None:
    s = Script()
    s.pin("a", 8, expires=10)
    s.loaded("a")
    s.attach("b", 8, wait=10)
    (answer,) = s.later(10)
    assert isinstance(answer, Refuse) and answer.error["code"] == "no-room"
    assert s.state("a") == "resident"


def test_a_budget_that_others_exceed_loads_nothing() -> None:
    s = Script()
    s.attach("a", 6)
    s.loaded("a")
    assert acts(s.reserve("host", "orphan", 8)) == []
    assert s.machine.use("host").used == 14
    assert s.attach("b", 1, conn=2, wait=5) == []
    s.release("a")
    assert s.freed("a") == [load("b", 2, 1)]


def test_cancelled_loads_count_until_they_end() -> None:
    s = Script()
    s.attach("a", 8, conn=1)
    assert s.close(1) == [cancel("a", 1)]
    assert s.attach("b", 8, conn=2) == []
    assert s.loaded("a", fail=True) == [load("b", 2, 8)]


def test_a_tick_with_nothing_to_do_does_nothing() -> None:
    s = Script()
    s.resident("a")
    assert s.tell(Tick()) == []
    assert s.machine.next_deadline() is None
