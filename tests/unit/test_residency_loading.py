"""Attach and warm: single-flight loads, who waits, and when a load is given up."""

from __future__ import annotations

from helpers.residency_script import FOREVER, Script, acts, cancel, free, items, key, load, logs, refusal

from trims.residency.effects import Effect, Grant, Journal, Load, Log, Publish, Refuse, Reply
from trims.residency.events import AttachAsked, Cancelled, Restored, Tick, WarmAsked


def test_an_attach_loads_and_is_granted_a_lease() -> None:
    s = Script()
    asked = s.tell(AttachAsked(1, 1, 60.0, key("a"), "a:latest", 4))
    assert asked == [Publish(key("a")), Load(key("a"), 1, "a:latest", 4)]
    s.now = 2.5
    assert s.load_done(1) == [
        Publish(key("a")),
        Log("loaded a:latest to host in 2.500s", "debug"),
        Grant(1, 1, 1, key("a"), "loaded"),
    ]
    view = s.machine.residency(key("a"))
    assert view is not None
    assert (view.state, view.leases, view.hits, view.load_seconds, view.since) == ("resident", 1, 0, 2.5, 2.5)


def test_a_resident_model_is_granted_at_once_and_counts_a_hit() -> None:
    s = Script()
    s.resident("a")
    s.now = 9
    assert s.tell(AttachAsked(2, 5, 9.0, key("a"), "a:latest", 2)) == [Publish(key("a")), Grant(2, 5, 1, key("a"))]
    view = s.machine.residency(key("a"))
    assert view is not None and (view.hits, view.last_use) == (1, 9)
    assert (s.machine.counters["hits"], s.machine.counters["misses"]) == (1, 0)


def test_many_requests_for_one_model_make_one_load_and_all_are_answered() -> None:
    s = Script()
    assert s.attach("a", 4, conn=1) == [load("a", 1, 4)]
    assert s.attach("a", 4, conn=2) == []
    assert s.warm("a", 4, conn=3) == []
    assert s.pin("a", 4, conn=4) == []
    granted = s.loaded("a")
    assert granted[:2] == [Grant(1, 1, 1, key("a"), "loaded"), Grant(2, 2, 2, key("a"), "joined")]
    assert [type(e) for e in granted[2:]] == [Reply, Reply]
    assert s.machine.counters["loads"] == 1


def test_variants_and_places_are_residencies_of_their_own() -> None:
    s = Script()
    assert s.attach("a", 4) == [load("a", 1, 4)]
    assert s.attach("a", 5, variant="ort-1") == [load("a", 2, 5, "ort-1")]


def test_a_load_that_nobody_waits_for_any_more_is_cancelled() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    assert s.close(1) == []
    assert s.close(2) == [cancel("a", 1)]
    assert s.state("a") == "doomed"
    assert s.loaded("a", fail=True) == []
    assert s.state("a") == "absent"
    assert s.machine.counters["load_failures"] == 0


def test_a_cancelled_load_that_was_faster_is_freed() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.close(1)
    assert s.loaded("a") == [free("a")]
    s.freed("a")
    assert s.state("a") == "absent"


def test_one_request_can_be_given_up_alone() -> None:
    s = Script()
    s.attach("a", 4)
    s.attach("a", 4)
    for request, effects in ((1, []), (2, [cancel("a", 1)])):
        del s.asks[(1, request)]
        assert acts(s.tell(Cancelled(1, request))) == effects


def test_a_wish_to_be_warm_outlives_its_connection() -> None:
    s = Script()
    s.warm("a", 4, conn=1)
    assert s.close(1) == []
    assert s.loaded("a") == []
    assert s.state("a") == "resident"
    assert list(s.machine.warm_set()) == [(key("a"), "a:latest")]


def test_a_warm_that_does_not_wait_is_answered_while_it_loads() -> None:
    s = Script()
    started, answered = s.warm("a", 4, wait=False)
    assert started == load("a", 1, 4)
    assert isinstance(answered, Reply) and answered.items[0]["outcome"] == "loading"
    assert s.loaded("a") == []
    assert s.state("a") == "resident"


def test_a_warm_that_does_not_wait_is_refused_when_there_is_no_room_now() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    assert refusal(s.warm("b", 4, conn=2, wait=False))["code"] == "no-room"
    assert list(s.machine.warm_set()) == []


def test_the_answer_to_warm_says_what_happened() -> None:
    s = Script()
    s.resident("old", nbytes=8)
    s.warm("a", 4)
    s.freed("old")
    s.now += 3
    (item,) = items(s.loaded("a"))
    assert item == {
        "ref": "a:latest",
        "digest": key("a").digest,
        "variant": "raw",
        "place": "host",
        "nbytes": 4,
        "outcome": "warmed",
        "seconds": 3.0,
        "victims": [
            {"ref": "old:latest", "digest": key("old").digest, "variant": "raw", "nbytes": 8, "load_seconds": 0.0}
        ],
    }
    (item,) = items(s.warm("a", 4))
    assert (item["outcome"], item["seconds"], item["victims"]) == ("already", 0.0, [])


def test_warm_is_written_to_the_journal_before_it_is_answered() -> None:
    s = Script()
    s.attach("a", 4)
    s.loaded("a")
    effects = s.tell(WarmAsked(1, 9, 60.0, key("a"), "a:latest", 4))
    assert [type(e) for e in effects] == [Publish, Journal, Reply]


def test_a_dry_run_changes_nothing_and_names_the_victims() -> None:
    s = Script()
    s.resident("x", "y", "z", nbytes=3)
    before = list(s.machine.residencies())
    (item,) = items(s.warm("a", 5, dry_run=True))
    assert item["outcome"] == "would-warm"
    assert [v["ref"] for v in item["victims"]] == ["x:latest", "y:latest"]
    assert list(s.machine.residencies()) == before
    assert items(s.warm("x", 3, dry_run=True))[0]["outcome"] == "already"
    assert refusal(s.warm("a", 5, dry_run=True, evict=False))["code"] == "no-room"
    assert refusal(s.warm("a", 11, dry_run=True))["code"] == "no-room"


def test_a_failed_load_refuses_everybody_with_its_reason() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.warm("a", 4, conn=2)
    s.pin("a", 4, conn=3)
    effects = s.load_done(1, fail=True)
    assert [(e.conn, e.error["code"]) for e in effects if isinstance(e, Refuse)] == [
        (1, "damaged"),
        (2, "damaged"),
        (3, "damaged"),
    ]
    assert "tensor w is damaged" in logs(effects)[0]
    assert s.state("a") == "absent" and not list(s.machine.pins()) and not list(s.machine.warm_set())
    assert s.machine.counters["load_failures"] == 1
    assert s.attach("a", 4) == [load("a", 2, 4)]


def test_an_attach_times_out_while_loading_and_the_last_one_cancels() -> None:
    s = Script()
    s.attach("a", 4, conn=1, wait=5)
    s.attach("a", 4, conn=2, wait=8)
    (first,) = s.later(5)
    assert isinstance(first, Refuse) and first.conn == 1 and first.error["code"] == "timed-out"
    s.now = 8
    late = acts(s.tell(Tick()))
    assert isinstance(late[0], Refuse) and late[1:] == [cancel("a", 1)]


def test_a_warm_that_times_out_while_loading_says_that_it_goes_on() -> None:
    s = Script()
    s.warm("a", 4, until=5)
    (answer,) = s.later(5)
    assert isinstance(answer, Refuse) and answer.error["code"] == "timed-out"
    assert "goes on" in str(answer.error["hint"])
    assert s.loaded("a") == [] and s.state("a") == "resident"


def test_no_time_at_all_is_enough_for_what_is_there() -> None:
    s = Script()
    s.resident("a", nbytes=8)
    assert isinstance(s.attach("a", 8, wait=0)[0], Grant)
    s.release("a")
    effects = s.attach("b", 8, wait=0)
    assert refusal(effects)["code"] == "timed-out"
    assert len(effects) == 1 and s.state("a") == "resident", "nothing is evicted for who cannot wait for the load"


def test_a_doomed_model_is_loaded_again_when_it_is_gone() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", force=True, conn=2)
    assert s.attach("a", 4, conn=2) == []
    assert s.release("a") == [free("a")]
    assert s.freed("a") == [load("a", 2, 4)]
    assert s.loaded("a") == [Grant(2, 3, 2, key("a"), "loaded")]


def test_waiting_for_a_doomed_one_ends_naming_who_holds_it() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.loaded("a")
    s.evict("a", force=True, conn=2)
    s.attach("a", 4, conn=2, wait=3)
    (answer,) = s.later(3)
    assert isinstance(answer, Refuse) and answer.error["code"] == "in-use"
    assert "pid 101" in str(answer.error["why"])


def test_time_to_live_counts_from_the_end_of_the_last_lease() -> None:
    s = Script(ttl=10)
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    s.loaded("a")
    assert s.machine.next_deadline() is None
    s.now = 20
    s.release("a", conn=1)
    assert s.machine.next_deadline() is None
    s.now = 30
    s.release("a", conn=2)
    view = s.machine.residency(key("a"))
    assert view is not None and view.expires == s.machine.next_deadline() == 40
    s.now = 40
    effects = s.tell(Tick())
    assert acts(effects) == [free("a")]
    assert "time to live" in logs(effects)[0]
    assert s.machine.counters["expired"] == 1


def test_warm_sets_its_own_time_to_live() -> None:
    s = Script(ttl=10)
    s.warm("a", 2, ttl=3.0)
    s.loaded("a")
    s.warm("b", 2, ttl=FOREVER)
    s.loaded("b")
    assert s.machine.next_deadline() == 3
    s.later(100)
    assert (s.state("a"), s.state("b")) == ("doomed", "resident")
    assert list(s.machine.warm_set()) == [(key("b"), "b:latest")]


def test_an_unknown_place_is_refused() -> None:
    s = Script()
    effects = s.tell(AttachAsked(1, 1, 60.0, key("a", place="gpu:x"), "a:latest", 4))
    assert refusal(effects)["code"] == "device-lost"


def test_an_earlier_life_is_taken_up_in_order_as_far_as_there_is_room() -> None:
    s = Script()
    assert s.restore("a", 6) == [load("a", 1, 6)]
    assert s.restore("b", 6) == []
    assert s.restore("c", 4) == [load("c", 2, 4)]
    assert [k for k, _ in s.machine.warm_set()] == [key("a"), key("c")]
    effects = s.load_done(1, fail=True)
    assert acts(effects) == [] and "damaged" in logs(effects)[0]
    assert [k for k, _ in s.machine.warm_set()] == [key("c")]
    effects = s.tell(Restored(key("a", place="gpu:x"), "a:latest", 6))
    assert acts(effects) == [] and "no place" in logs(effects)[0]


def test_progress_goes_to_those_who_wait() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.warm("a", 4, conn=2)
    s.warm("a", 4, conn=3)
    s.close(3)
    assert s.machine.waiters(key("a")) == [(1, 1), (2, 2)]
    assert s.machine.queue() == 2


def test_a_grant_says_whether_it_was_there_was_loaded_for_it_or_for_another() -> None:
    def how(effects: list[Effect]) -> list[str]:
        return [e.how for e in effects if isinstance(e, Grant)]

    s = Script()
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    assert how(s.loaded("a")) == ["loaded", "joined"]
    assert how(s.attach("a", 4, conn=3)) == ["hit"]
    s.warm("b", 2, conn=4)
    s.attach("b", 2, conn=1)
    assert how(s.loaded("b")) == ["joined"], "the load is the doing of who warmed it"


def test_when_who_asked_first_gives_up_in_the_line_the_load_is_the_next_ones_doing() -> None:
    s = Script()
    s.attach("a", 10, conn=1)
    s.loaded("a")
    s.attach("b", 4, conn=2)
    s.attach("b", 4, conn=3)
    s.close(2)
    s.release("a")
    s.freed("a")
    assert s.loaded("b") == [Grant(3, 3, 2, key("b"), "loaded")]


def test_when_who_began_the_load_goes_the_others_have_still_joined_it() -> None:
    s = Script()
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    s.close(1)
    assert s.loaded("a") == [Grant(2, 2, 1, key("a"), "joined")]
