"""Conditions, stop, and the ends of connections."""

from __future__ import annotations

import pytest
from helpers.residency_script import FOREVER, Script, acts, free, items, key, load, refusal

from trims.residency.effects import Effect, Exit, Grant, Log, Refuse, Reply
from trims.residency.events import AttachAsked, Closed, Opened, Released, StopAsked, Tick, WarmAsked, Who


def held(effects: list[Effect]) -> bool:
    return any(isinstance(e, Reply) and e.items and e.items[0].get("held") for e in effects)


def test_warm_and_attached_hold_when_it_is_so() -> None:
    s = Script()
    assert not held(s.wait_for("warm", "a"))
    assert not held(s.wait_for("attached", "a"))
    s.attach("a", 4)
    before = len(s.answers)
    s.loaded("a")
    assert [a.items[0]["condition"] for a in s.answers[before:] if isinstance(a, Reply)] == ["warm", "attached"]
    assert held(s.wait_for("warm", "a"))


def test_idle_and_gone_hold_when_it_is_so() -> None:
    s = Script()
    assert held(s.wait_for("gone", "a")) and held(s.wait_for("idle", "a"))
    s.attach("a", 4)
    assert not held(s.wait_for("idle", "a")) and not held(s.wait_for("gone", "a"))
    s.loaded("a")
    assert held(s.release("a"))
    assert not held(s.evict("a"))
    assert held(s.freed("a"))


def test_gone_holds_also_when_the_next_client_has_it_loaded_at_once() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", force=True, conn=2)
    s.attach("a", 4, conn=3)
    s.wait_for("gone", "a")
    s.close(1)
    effects = s.freed("a")
    assert held(effects) and load("a", 2, 4) in effects


def test_free_counts_spare_pages_but_not_what_could_be_evicted() -> None:
    s = Script()
    s.resident("a", nbytes=6)
    s.reserve("host", "spare", 2)
    assert held(s.wait_for("free", nbytes=4))
    assert not held(s.wait_for("free", nbytes=5))
    s.evict("a")
    assert held(s.freed("a"))
    assert refusal(s.wait_for("free", nbytes=11))["code"] == "no-room"


@pytest.mark.parametrize(
    ("condition", "missing"),
    [
        ("warm", "it is loading"),
        ("gone", "it is loading"),
        ("attached", "nobody holds it"),
        ("idle", "it is held by pid 101"),
    ],
)
def test_a_deadline_says_what_was_missing(condition: str, missing: str) -> None:
    s = Script()
    s.attach("a", 4, wait=FOREVER)
    s.wait_for(condition, "a", wait=3)
    (answer,) = s.later(3)
    assert isinstance(answer, Refuse)
    assert (answer.error["code"], answer.error["exit"], answer.error["why"]) == ("timed-out", 124, missing)


def test_a_deadline_for_free_memory_says_how_much_there_is() -> None:
    s = Script()
    s.resident("a", nbytes=6)
    s.wait_for("free", nbytes=8, wait=1)
    (answer,) = s.later(1)
    assert isinstance(answer, Refuse) and answer.error["why"] == "4B of 8B are free"


def test_stop_drains_then_ends() -> None:
    s = Script()
    s.attach("a", 2)
    s.loaded("a")
    s.attach("b", 2, conn=2)
    assert s.stop() == []
    error = refusal(s.attach("c", 2, conn=3))
    assert (error["code"], error["what"]) == ("unreachable", "the manager is stopping")
    assert refusal(s.warm("c", 2, conn=3))["code"] == "unreachable"
    s.loaded("b")
    assert s.release("b", conn=2) == []
    effects = s.release("a")
    assert isinstance(effects[0], Reply) and effects[0].conn == 5 and effects[1] == Exit()


def test_a_drain_that_takes_too_long_is_refused_and_serving_goes_on() -> None:
    s = Script()
    s.attach("a", 2)
    s.loaded("a")
    s.stop(wait=5)
    (answer,) = s.later(5)
    assert isinstance(answer, Refuse) and answer.error["code"] == "in-use"
    assert answer.error["details"] == {"holders": [{"pid": 101, "uid": 1000, "job": "", "container": ""}]}
    assert not s.machine.stopping
    assert isinstance(s.attach("a", 2, conn=2)[0], Grant)


def test_a_drain_whose_asker_is_gone_is_off() -> None:
    s = Script()
    s.attach("a", 2)
    s.loaded("a")
    s.stop(conn=4)
    s.stop(conn=5)
    s.close(4)
    assert s.machine.stopping
    s.close(5)
    assert not s.machine.stopping


def test_stop_now_tells_everybody_who_waits() -> None:
    s = Script()
    s.attach("a", 9)
    s.loaded("a")
    s.attach("b", 9, conn=2)
    s.wait_for("warm", "b")
    s.warm("c", 9, conn=3)
    s.close(3)
    effects = s.stop(drain=False)
    assert effects[0] == Reply(5, effects[0].request)  # type: ignore[union-attr]
    assert [e.conn for e in effects if isinstance(e, Refuse)] == [2, 5]
    assert effects[-1] == Exit()
    assert s.machine.queue() == 0
    assert s.machine.handle(Closed(1), 99.0) == []
    assert refusal(s.machine.handle(StopAsked(2, 77, 99.0), 99.0))["code"] == "unreachable"


def test_a_connection_takes_its_leases_and_requests_along() -> None:
    s = Script()
    s.attach("a", 3)
    s.loaded("a")
    s.attach("b", 3)
    s.loaded("b")
    s.attach("b", 3)
    s.attach("big", 9)
    s.evict("a", wait=True)
    assert s.close(1) == []
    assert not list(s.machine.leases()) and s.machine.queue() == 0
    assert s.machine.counters["releases"] == 3
    assert s.attach("d", 10, conn=2) == [free("a"), free("b")]


def test_ending_a_connection_costs_its_own_leases_only() -> None:
    s = Script(1000)
    s.attach("a", 1, conn=2)
    s.loaded("a")
    for _ in range(50):
        s.attach("a", 1, conn=1)
    leases = s.machine.leases_of(key("a"))
    assert len(leases) == 51 and leases[0].conn == 2
    s.close(1)
    assert [lease.conn for lease in s.machine.leases_of(key("a"))] == [2]


def test_strangers_and_their_leases_are_ignored() -> None:
    s = Script()
    s.attach("a", 3)
    s.loaded("a")
    handle = s.machine.handle
    assert handle(Released(2, 1), 1.0) == []
    assert handle(Released(99, 1), 1.0) == []
    assert handle(Closed(99), 1.0) == []
    assert handle(AttachAsked(99, 1, 60.0, key("a"), "a:latest", 3), 1.0) == []
    assert len(list(s.machine.leases())) == 1


def test_one_id_for_two_requests_is_refused_and_the_first_stands() -> None:
    s = Script()
    s.attach("a", 3)
    effects = s.machine.handle(AttachAsked(1, 1, 60.0, key("b"), "b:latest", 3), 0.0)
    assert refusal(effects)["code"] == "protocol"
    assert s.loaded("a") == [Grant(1, 1, 1, key("a"), "loaded")]


def test_an_id_can_be_used_again_after_its_answer() -> None:
    s = Script()
    s.tell(WarmAsked(1, 7, 60.0, key("a"), "a:latest", 3, wait=False))
    assert acts(s.tell(AttachAsked(1, 7, 60.0, key("b"), "b:latest", 3))) == [load("b", 2, 3)]
    assert s.loaded("a") == []
    assert s.loaded("b") == [Grant(1, 7, 1, key("b"), "loaded")]


def test_time_never_goes_back() -> None:
    s = Script(ttl=5)
    s.now = 100
    s.resident("a")
    s.machine.handle(Tick(), 1.0)
    assert s.machine.next_deadline() == 105


def test_a_second_client_of_the_same_process_counts_apart() -> None:
    s = Script()
    s.tell(Opened(9, Who(101, 7, 1000)))
    s.attach("a", 2, conn=1)
    s.attach("a", 2, conn=9)
    s.loaded("a")
    view = s.machine.residency(key("a"))
    assert view is not None and view.leases == 2
    assert refusal(s.evict("a", conn=2))["details"] == {
        "holders": [{"pid": 101, "uid": 1000, "job": "", "container": ""}]
    }


def test_a_stop_is_logged() -> None:
    s = Script()
    effects = s.stop(drain=False)
    assert items(effects) == ()
    assert Log not in [type(e) for e in effects], "acts leaves logs out"
