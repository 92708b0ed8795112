"""Evict by name and by rule, forget, and what force and wait mean."""

from __future__ import annotations

import pytest
from helpers.residency_script import Script, acts, cancel, free, items, key, load, logs, refusal

from trims.residency.effects import Refuse, Reply
from trims.residency.events import EvictAsked, Freed, Loaded, LoadFailed, Lost
from trims.residency.states import InvalidTransition


def outcomes(reply: Reply) -> list[tuple[object, object]]:
    return [(item["ref"], item["outcome"]) for item in reply.items]


def answered(s: Script) -> Reply:
    answer = s.answers[-1]
    assert isinstance(answer, Reply)
    return answer


def test_an_idle_one_is_answered_when_its_memory_is_back() -> None:
    s = Script()
    s.resident("a")
    effects = s.tell(EvictAsked(2, 9, 60.0, "host", key("a").digest, "a:latest"))
    assert acts(effects) == [free("a")]
    assert logs(effects) == ["evict a:latest (2B) from host: by name, asked by pid 102"]
    s.freed("a")
    assert answered(s) == Reply(
        2,
        9,
        (
            {
                "ref": "a:latest",
                "digest": key("a").digest,
                "variant": "raw",
                "place": "host",
                "nbytes": 2,
                "measured": None,
                "outcome": "evicted",
                "holders": [],
            },
        ),
    )
    assert (s.machine.counters["evictions"], s.machine.counters["bytes_evicted"]) == (1, 2)


def test_what_is_not_there_is_absent_and_no_failure() -> None:
    s = Script()
    (item,) = items(s.evict("a"))
    assert (item["ref"], item["outcome"]) == ("a:latest", "absent")


def test_what_is_leased_is_refused_naming_the_holders() -> None:
    s = Script()
    s.attach("a", 4, conn=4)
    s.loaded("a")
    error = refusal(s.evict("a"))
    assert (error["code"], error["exit"]) == ("in-use", 21)
    assert "pid 104 (job j4) holds it" in error["why"]
    assert error["details"] == {"holders": [{"pid": 104, "uid": 1000, "job": "j4", "container": ""}]}
    assert s.state("a") == "resident"


def test_force_dooms_it_until_the_last_lease_ends() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    s.loaded("a")
    (item,) = items(s.evict("a", force=True, conn=3))
    assert (item["outcome"], [h["pid"] for h in item["holders"]]) == ("doomed", [101, 102])
    assert s.machine.use("host").leased == 4
    assert s.release("a", conn=1) == []
    assert s.close(2) == [free("a")]
    (again,) = items(s.evict("a", force=True, until=0, conn=3))
    assert again["outcome"] == "evicted"


def test_to_wait_means_to_wait_and_not_to_doom() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    assert s.evict("a", conn=2, wait=True) == []
    assert s.state("a") == "resident"
    s.attach("a", 4, conn=3)
    assert s.release("a", conn=1) == []
    assert s.release("a", conn=3) == [free("a")]
    s.freed("a")
    assert outcomes(answered(s)) == [("a:latest", "evicted")]


def test_waiting_ends_at_its_deadline_and_leaves_everything_as_it_was() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", conn=2, wait=True, until=5)
    (answer,) = s.later(5)
    assert isinstance(answer, Refuse) and answer.error["code"] == "in-use"
    assert s.release("a") == [] and s.state("a") == "resident"


def test_force_and_wait_doom_now_and_answer_when_it_is_gone() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    assert s.evict("a", conn=2, wait=True, force=True) == []
    assert s.state("a") == "doomed"
    s.release("a")
    s.freed("a")
    assert outcomes(answered(s)) == [("a:latest", "evicted")]


def test_what_is_pinned_is_refused_also_by_force() -> None:
    s = Script()
    s.pin("a", 4)
    s.loaded("a")
    for force in (False, True):
        error = refusal(s.evict("a", force=force))
        assert (error["code"], error["exit"]) == ("pinned", 22)
        assert "ann (why not)" in error["why"]
    assert s.state("a") == "resident"


def test_all_variants_go_or_none() -> None:
    s = Script()
    s.resident("a")
    s.attach("a", 3, variant="ort")
    s.loaded("a", variant="ort")
    assert refusal(s.evict("a"))["code"] == "in-use"
    assert s.state("a") == "resident"
    s.close(1)
    assert s.evict("a", conn=2) == [free("a"), type(free("a"))(key("a", "ort"))]
    s.settle()
    assert len(answered(s).items) == 2


def test_what_is_loading_for_somebody_is_in_use() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    assert refusal(s.evict("a", conn=2))["code"] == "in-use"
    refused, cancelled = s.evict("a", conn=2, force=True)
    assert isinstance(refused, Refuse) and refused.conn == 1 and "while it was loading" in str(refused.error["why"])
    assert cancelled == cancel("a", 1)
    s.loaded("a", fail=True)
    assert outcomes(answered(s)) == [("a:latest", "evicted")]


def test_what_is_loading_for_nobody_is_simply_stopped() -> None:
    s = Script()
    s.warm("a", 4, wait=False)
    assert s.evict("a", conn=2) == [cancel("a", 1)]
    assert list(s.machine.warm_set()) == []


def test_a_dry_run_names_them_and_does_nothing() -> None:
    s = Script()
    s.resident("a", "b")
    assert [i["outcome"] for i in items(s.evict("a", dry_run=True))] == ["would-evict"]
    assert [i["ref"] for i in items(s.evict(dry_run=True))] == ["a:latest", "b:latest"]
    assert (s.state("a"), s.state("b")) == ("resident", "resident")


def test_a_dry_run_lets_wishes_stand() -> None:
    s = Script()
    s.attach("big", 9, conn=4)
    s.loaded("big")
    s.warm("a", 4, conn=1)
    s.close(1)
    assert [i["outcome"] for i in items(s.evict("a", conn=2, dry_run=True))] == ["absent"]
    assert acts(s.release("big", conn=4)) == [free("big")]


def test_by_rule_only_what_is_idle_goes() -> None:
    s = Script(20)
    s.resident("a", "b")
    s.attach("b", 2)
    s.pin("p", 2)
    s.loaded("p")
    s.warm("l", 2, wait=False)
    assert s.evict() == [free("a")]
    s.freed("a")
    assert outcomes(answered(s)) == [("a:latest", "evicted")]
    assert items(s.evict()) == ()


def test_by_idle_time() -> None:
    s = Script()
    s.resident("a", "b", "c")  # last used at 0, 1, 2; now 3
    assert s.evict(idle=2.0) == [free("a"), free("b")]


def test_until_free_evicts_as_few_as_will_do() -> None:
    s = Script()
    s.resident("a", "b", "c", nbytes=3)
    assert items(s.evict(until_free=1)) == ()
    assert s.evict(until_free=6) == [free("a"), free("b")]


def test_until_free_evicts_nothing_when_it_cannot_be_met() -> None:
    s = Script()
    s.resident("a", nbytes=3)
    s.attach("b", 3)
    s.loaded("b")
    error = refusal(s.evict(until_free=8))
    assert (error["code"], error["details"]["blockers"][0]["ref"]) == ("no-room", "b:latest")
    assert s.state("a") == "resident"


def test_forget_lets_go_of_what_is_idle_everywhere() -> None:
    s = Script()
    s.resident("a")
    assert s.forget("a") == [free("a")]
    s.freed("a")
    assert answered(s).items == ({"digest": key("a").digest, "evicted": 1},)
    assert items(s.forget("a")) == ({"digest": key("a").digest, "evicted": 0},)


def test_forget_refuses_what_is_held_or_pinned_unless_forced() -> None:
    s = Script()
    s.attach("a", 2, conn=1)
    s.loaded("a")
    assert refusal(s.forget("a"))["code"] == "in-use"
    s.pin("a", 2, conn=2)
    assert refusal(s.forget("a"))["code"] == "pinned"
    assert items(s.forget("a", force=True)) == ({"digest": key("a").digest, "evicted": 1},)
    assert s.state("a") == "doomed" and not list(s.machine.pins())


def test_forget_by_force_refuses_those_who_wait_in_the_line() -> None:
    s = Script()
    s.attach("a", 9)
    s.loaded("a")
    s.attach("b", 9, conn=2)
    refused, answer = s.forget("b", force=True)
    assert isinstance(refused, Refuse) and (refused.conn, refused.request) == (2, 2)
    assert isinstance(answer, Reply)
    assert s.machine.queue() == 0


def test_a_closed_connection_no_longer_evicts() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", conn=2, wait=True)
    s.close(2)
    assert s.release("a") == [] and s.state("a") == "resident"


def test_news_of_work_that_was_not_asked_for_is_a_bug_and_tells_the_history() -> None:
    s = Script()
    s.resident("a")
    for event in (Freed(key("a")), Loaded(key("a"), 1, 2), LoadFailed(key("a"), 7), Freed(key("b"))):
        with pytest.raises(InvalidTransition) as raised:
            s.machine.handle(event, 5.0)
        if event.key == key("a"):
            assert "0.000 loaded (raw, host): warm" in str(raised.value)


def test_evicting_a_doomed_one_again_is_no_failure() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", force=True, conn=2)
    (item,) = items(s.evict("a", conn=2))
    assert item["outcome"] == "doomed"
    s.evict("a", conn=2, wait=True, until=4)
    (answer,) = s.later(4)
    assert isinstance(answer, Refuse) and answer.error["code"] == "in-use"
    assert s.attach("b", 6, conn=3) == [load("b", 2, 6)]


def test_two_leases_of_one_client_that_end_together_free_a_doomed_one_once() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.attach("a", 4, conn=1)
    s.evict("a", force=True, conn=2)
    assert s.close(1) == [free("a")]


# ---- memory that is gone


def test_what_is_lost_goes_and_is_loaded_again_when_asked_for() -> None:
    s = Script()
    s.resident("a")
    effects = s.tell(Lost(key("a")))
    assert acts(effects) == [free("a")]
    assert logs(effects) == [
        "evict a:latest (2B) from host: its memory is gone: the process that owned it has ended",
    ]
    s.freed("a")
    assert acts(s.attach("a", 2)) == [load("a", 2, 2)]


def test_what_is_lost_under_a_client_goes_with_its_last_lease() -> None:
    s = Script()
    s.attach("a", 2, conn=4)
    s.loaded("a")
    assert acts(s.tell(Lost(key("a")))) == []
    assert acts(s.attach("a", 2, conn=3)) == []  # waits
    assert acts(s.close(4)) == [free("a")]
    assert acts(s.freed("a")) == [load("a", 2, 2)]


def test_what_is_lost_and_pinned_is_loaded_again_by_itself() -> None:
    s = Script()
    s.pin("a", 2)
    s.loaded("a")
    assert acts(s.tell(Lost(key("a")))) == [free("a")]
    assert acts(s.freed("a")) == [load("a", 2, 2)]


def test_a_loss_of_what_is_on_its_way_out_changes_nothing() -> None:
    s = Script()
    assert s.tell(Lost(key("a"))) == []
    s.resident("a")
    s.evict("a")
    assert acts(s.tell(Lost(key("a")))) == []
    s.freed("a")
