"""What the machine does differently under some policies, how it changes them, and the shortest time to stay."""

from __future__ import annotations

import pytest
from helpers.residency_script import FOREVER, Script, cancel, free, items, key, load, logs, refusal

from trims.residency.effects import Effect, Free, Grant, Refuse, Reply
from trims.residency.events import PolicyAsked, Tick, WarmAsked
from trims.residency.policies import POLICIES, make


def freed(effects: list[Effect]) -> list[str]:
    return [e.key.digest[0] for e in effects if isinstance(e, Free)]


# ---- flush


def test_flush_lets_all_idle_ones_go_when_any_has_to() -> None:
    s = Script(policy="flush")
    s.resident("a", "b", "c")
    s.attach("d", 2)
    s.loaded("d")
    s.attach("b", 2)
    assert freed(s.attach("e", 4, conn=2)) == ["a", "c"]
    assert [(h.rank, h.of, h.policy) for h in s.machine.history(key("c").digest)][-1] == (2, 2, "flush")


def test_flush_leaves_everything_where_there_is_room() -> None:
    s = Script(policy="flush")
    s.resident("a", "b", "c")
    assert s.attach("d", 4) == [load("d", 4, 4)]
    assert s.attach("e", 11, conn=2)[0].error["code"] == "no-room"  # type: ignore[union-attr]
    s.loaded("d")
    assert refusal(s.warm("f", 9, wait=False))["code"] == "no-room"
    assert s.state("a") == s.state("b") == s.state("c") == "resident", "nothing goes for who cannot be served"


def test_flush_gives_spare_pages_up_only_for_what_models_do_not_free() -> None:
    s = Script(policy="flush")
    s.resident("a", nbytes=4)
    s.reserve("host", "spare", 6)
    s.attach("b", 5)
    assert s.state("a") == "resident" and s.shrinks == [("host", 5)], "spare pages are enough"
    s = Script(policy="flush")
    s.resident("a", "b", nbytes=4)
    s.reserve("host", "spare", 2)
    assert freed(s.attach("c", 9)) == ["a", "b"]
    assert s.shrinks == [("host", 1)]


# ---- eager


def test_eager_gives_up_with_the_last_lease() -> None:
    s = Script(policy="eager")
    s.attach("a", 4, conn=1)
    s.attach("a", 4, conn=2)
    s.loaded("a")
    assert s.release("a", conn=1) == []
    assert s.close(2) == [free("a")]
    line = s.machine.history(key("a").digest)[-1]
    assert (line.what, line.why, line.policy, line.rank) == ("evicted", "its last lease ended", "eager", 0)


def test_eager_leaves_what_was_warmed_or_is_pinned() -> None:
    s = Script(policy="eager")
    s.resident("a")
    s.pin("b", 2)
    s.loaded("b")
    s.attach("b", 2)
    assert s.release("b") == []
    assert s.state("a") == s.state("b") == "resident"
    s.attach("a", 2)
    assert s.release("a") == [free("a")]
    assert list(s.machine.warm_set()) == []


def test_two_leases_of_one_client_that_end_together_give_up_once() -> None:
    s = Script(policy="eager")
    s.attach("a", 4)
    s.loaded("a")
    s.attach("a", 4)
    assert s.close(1) == [free("a")]


# ---- never


def test_never_refuses_at_once_what_does_not_fit_and_says_so() -> None:
    s = Script(policy="never")
    s.resident("a", nbytes=6)
    error = refusal(s.attach("b", 5))
    assert error["code"] == "no-room" and "nothing is evicted under the policy never" in error["why"]
    assert "a:latest (6B) is kept" in error["why"] and "trims evict" in error["hint"]
    details = error["details"]
    assert (details["free"], details["evictable"]) == (4, 0)
    assert details["blockers"] == [{"ref": "a:latest", "nbytes": 6, "why": "kept", "holders": [], "pins": []}]
    assert s.attach("c", 4) == [load("c", 2, 4)]


def test_never_names_who_holds_what_it_keeps() -> None:
    s = Script(policy="never")
    s.attach("a", 6, conn=4)
    s.loaded("a")
    (blocker,) = refusal(s.attach("b", 5))["details"]["blockers"]
    assert (blocker["why"], blocker["holders"]) == ("leased", [{"pid": 104, "uid": 1000, "job": "j4", "container": ""}])
    s.release("a", conn=4)
    (blocker,) = refusal(s.attach("b", 5))["details"]["blockers"]
    assert (blocker["why"], blocker["holders"]) == ("kept", [])


def test_never_names_what_is_there_now() -> None:
    s = Script(policy="never")
    s.resident("a", "b", nbytes=4)
    assert [b["ref"] for b in refusal(s.attach("c", 5))["details"]["blockers"]] == ["a:latest", "b:latest"]
    s.evict("b")
    s.freed("b")
    s.resident("d", nbytes=5)
    assert [b["ref"] for b in refusal(s.attach("c", 5))["details"]["blockers"]] == ["d:latest", "a:latest"]


def test_never_waits_for_what_goes_by_itself() -> None:
    s = Script(policy="never", ttl=5)
    s.resident("a", nbytes=6)
    assert s.attach("b", 5) == [], "a has a time to live"
    s.advance(5)
    s.freed("a")
    assert s.loads and s.state("b") == "loading"
    s = Script(policy="never")
    s.attach("a", 6)
    s.loaded("a")
    s.evict("a", force=True)
    assert s.attach("b", 5, conn=2) == [], "a is doomed"
    s.release("a")
    assert s.freed("a") == [load("b", 2, 5)]


def test_never_does_not_wait_for_the_end_of_a_lease_or_a_load() -> None:
    s = Script(policy="never")
    s.attach("a", 6)
    assert refusal(s.attach("b", 5, conn=2))["code"] == "no-room"
    s.loaded("a")
    assert refusal(s.attach("b", 5, conn=2))["code"] == "no-room"


def test_never_waits_for_those_alone_that_were_given_a_time_to_live() -> None:
    s = Script(policy="never")
    s.resident("a", nbytes=4)
    s.warm("b", 4, ttl=5.0)
    s.loaded("b")
    assert refusal(s.attach("c", 7))["code"] == "no-room", "a stays for ever"
    assert s.attach("c", 6) == []
    s.pin("b", 4, conn=3)
    assert refusal(s.attach("d", 5, conn=2))["code"] == "no-room", "and now b does"


def test_behind_one_that_waits_never_still_refuses_at_once() -> None:
    s = Script(policy="never")
    s.resident("a", nbytes=4)
    s.warm("b", 4, ttl=5.0)
    s.loaded("b")
    assert s.attach("c", 6) == []
    assert refusal(s.attach("d", 7, conn=2))["code"] == "no-room"


def test_by_hand_never_evicts_as_any_other() -> None:
    s = Script(policy="never")
    s.resident("a", "b")
    assert freed(s.evict(until_free=8)) == ["a"]
    assert freed(s.evict("b")) == ["b"]


# ---- what a policy is told


def test_a_policy_is_told_which_of_its_victims_went_and_not_of_others() -> None:
    s = Script(budget=3, policy="s3fifo")
    s.resident("a", "b", "c", nbytes=1)
    assert s.attach("d", 1) == [free("a")]
    s.freed("a")
    s.loaded("d")
    s.release("d")
    assert s.attach("a", 1) == [free("b")]
    s.freed("b")
    s.loaded("a")
    s.release("a")
    assert freed(s.evict()) == ["c", "d", "a"], "a was a victim, and came back: it goes last"
    for model in "cda":
        s.freed(model)
    s.resident("e", "a", "c", nbytes=1)
    assert freed(s.evict()) == ["e", "a", "c"], "what is evicted by hand leaves no ghost"


# ---- changing the policy


@pytest.mark.parametrize("name", POLICIES)
def test_a_new_policy_knows_what_is_there_in_order_of_last_use(name: str) -> None:
    s = Script(budget=12, policy="fifo")
    s.resident("a", "b", "c", "d")
    s.attach("a", 2)
    s.attach("b", 2)
    s.release("b")
    assert items(s.change(name)) == ({"policy": name, "before": "fifo"},)
    assert s.machine.policy == name
    if name in ("lru", "fifo", "lfu", "eager", "s3fifo", "sieve"):
        assert freed(s.attach("e", 9, conn=2)) == ["c", "d", "b"]
    assert s.state("a") == "resident", "it is held, under any policy"
    s.machine.invariants()


def test_who_waits_is_looked_at_again_when_the_policy_changes() -> None:
    s = Script(policy="lru")
    s.attach("a", 6)
    s.loaded("a")
    assert s.attach("b", 5, conn=2) == []
    (told, refused) = sorted(s.change("never"), key=lambda e: type(e).__name__, reverse=True)
    assert isinstance(told, Reply) and isinstance(refused, Refuse) and refused.error["code"] == "no-room"
    s.release("a")
    assert refusal(s.attach("b", 5, conn=2))["code"] == "no-room"
    s.change("lru")
    assert freed(s.attach("b", 5, conn=2)) == ["a"]


def test_a_change_is_logged_with_who_asked() -> None:
    s = Script()
    assert logs(s.tell(PolicyAsked(2, 1, 60.0, make("lcu")))) == ["policy lfu instead of lru, asked by pid 102"]


# ---- the shortest time to stay


def test_what_came_a_moment_ago_is_no_victim_and_the_request_waits_until_it_may_be() -> None:
    s = Script(min_resident=5)
    s.resident("a", "b", nbytes=5)  # loaded at 0 and 1; now it is 2
    assert s.attach("c", 8) == []
    assert s.machine.next_deadline() == 5
    s.now = 5
    s.tell(Tick())
    assert s.frees == [], "one of them is not enough"
    s.now = 6
    s.tell(Tick())
    assert [k.digest[0] for k in s.frees] == ["a", "b"]


def test_use_does_not_make_it_young_again() -> None:
    s = Script(min_resident=5)
    s.resident("a", nbytes=6)
    s.now = 6
    s.attach("a", 6)
    s.release("a")
    assert freed(s.attach("b", 6)) == ["a"]


def test_the_ripe_one_goes_though_the_young_one_was_used_less_lately() -> None:
    s = Script(min_resident=5)
    s.resident("old", nbytes=4)
    s.now = 4
    s.resident("new", nbytes=4)
    s.attach("old", 4)
    s.release("old")
    s.now = 6
    (gone,) = s.attach("b", 4)
    assert gone == free("old")


def test_by_hand_the_young_ones_go_too() -> None:
    s = Script(min_resident=50)
    s.resident("a", "b", "c", nbytes=3)
    assert freed(s.evict("b")) == ["b"]
    assert freed(s.evict(until_free=7)) == ["a"]
    assert freed(s.evict()) == ["c"]


def test_the_young_go_last_when_others_take_memory() -> None:
    s = Script(min_resident=5)
    s.resident("a", nbytes=5)
    s.now = 4
    s.resident("b", nbytes=5)
    s.attach("a", 5)
    s.release("a")
    s.now = 6
    assert [e for e in s.reserve("host", "orphan 1", 4) if isinstance(e, Free)] == [free("a")]
    assert [e for e in s.reserve("host", "orphan 2", 4) if isinstance(e, Free)] == [free("b")]


def test_who_cannot_wait_for_the_young_is_told_about_them() -> None:
    s = Script(min_resident=50)
    s.resident("a", nbytes=6)
    for refused in (refusal(s.warm("b", 6, wait=False)), refusal(s.warm("b", 6, dry_run=True))):
        assert refused["code"] == "no-room"
        assert "a:latest (6B) is there for less than 50s" in refused["why"]
        details = refused["details"]
        assert (details["evictable"], details["young"], details["blockers"][0]["why"]) == (0, 6, "young")
    s.attach("b", 6, wait=3)
    (answer,) = s.later(3)
    assert isinstance(answer, Refuse) and answer.error["code"] == "no-room", "in time for its deadline"


def test_each_residency_has_its_own_time_to_stay() -> None:
    s = Script(min_resident=5)
    s.resident("a", nbytes=6)
    s.evict("a")
    s.attach("a", 6)  # while it is being freed: it is loaded again at once
    s.freed("a")
    s.now = 4
    s.loaded("a")
    s.release("a")
    s.now = 6  # what was loaded at 0 would be ripe
    assert s.attach("b", 6) == []
    s.now = 9
    s.tell(Tick())
    assert s.frees == [key("a")]


def test_what_ripens_under_a_lease_or_a_pin_is_ripe_when_that_ends() -> None:
    s = Script(min_resident=5)
    s.attach("a", 5)
    s.loaded("a")
    s.pin("b", 5)
    s.loaded("b")
    s.now = 7
    s.tell(Tick())
    s.release("a")
    s.unpin("b")
    assert freed(s.attach("c", 10)) == ["a", "b"]


def test_a_time_to_live_does_not_wait_for_it() -> None:
    s = Script(ttl=2, min_resident=50)
    s.resident("a")
    s.advance(3)
    assert s.frees == [key("a")]


# ---- dry runs


def test_a_dry_run_says_what_is_needed_free_and_lost() -> None:
    s = Script()
    s.warm("a", 4)
    s.now = 3.0
    s.loaded("a")
    s.warm("b", 4)
    s.loaded("b")
    (item,) = items(s.warm("c", 5, dry_run=True))
    assert (item["outcome"], item["need"], item["free"]) == ("would-warm", 5, 2)
    assert item["victims"] == [
        {"ref": "a:latest", "digest": key("a").digest, "variant": "raw", "nbytes": 4, "load_seconds": 3.0}
    ]
    (item,) = items(s.warm("a", 4, dry_run=True))
    assert (item["outcome"], item["need"], item["victims"]) == ("already", 0, [])


def test_a_dry_run_under_flush_and_never_says_what_these_would_do() -> None:
    s = Script(policy="flush")
    s.resident("a", "b", nbytes=4)
    (item,) = items(s.warm("c", 3, dry_run=True))
    assert [v["ref"] for v in item["victims"]] == ["a:latest", "b:latest"]
    s.change("never")
    assert "nothing is evicted" in refusal(s.warm("c", 3, dry_run=True))["why"]


# ---- history


def history(s: Script, model: str) -> list[tuple[object, ...]]:
    lines = s.machine.history(key(model).digest)
    return [(h.time, h.what, h.why, h.by, h.policy, h.rank, h.of, h.seconds) for h in lines]


def test_history_says_who_it_was_loaded_for_and_for_whom_it_went() -> None:
    s = Script()
    s.attach("a", 5, conn=1)
    s.now = 2.0
    s.loaded("a")
    s.release("a")
    s.resident("b", nbytes=5)
    s.now = 10.0
    s.attach("c", 7, conn=3)
    assert history(s, "a") == [
        (2.0, "loaded", "attach", "pid 101", "", 0, 0, 2.0),
        (10.0, "evicted", "room for c:latest (7B)", "pid 103", "lru", 1, 2, 8.0),
    ]
    assert history(s, "b")[-1][4:7] == ("lru", 2, 2)
    assert [(h.ref, h.what) for h in s.machine.history()][-2:] == [("a:latest", "evicted"), ("b:latest", "evicted")]


def test_history_of_what_people_do() -> None:
    s = Script(ttl=30)
    s.pin("a", 2, expires=5.0)
    s.loaded("a")
    s.advance(5)
    s.pin("a", 2, owner="bob")
    s.unpin("a", conn=3)
    s.attach("a", 2, conn=2)
    s.evict("a", conn=4, force=True)
    s.release("a", conn=2)
    s.freed("a")
    assert [line[1:4] for line in history(s, "a")] == [
        ("pinned", "why not", "ann"),
        ("loaded", "pin", "pid 101"),
        ("pin expired", "", "ann"),
        ("pinned", "why not", "bob"),
        ("unpinned", "by pid 103", "bob"),
        ("doomed", "by force", "pid 104"),
        ("freed", "nobody holds it any more", ""),
    ]
    s.warm("a", 2)
    s.loaded("a")
    s.advance(30)
    assert history(s, "a")[-1][1:3] == ("expired", "it was idle for 30s, its time to live")


def test_history_of_loads_that_come_to_nothing() -> None:
    s = Script()
    s.warm("a", 2, conn=2)
    s.now = 1.0
    s.loaded("a", fail=True)
    assert s.attach("a", 2, conn=1) == [load("a", 2, 2)]
    s.now = 3.5
    assert s.close(1) == [cancel("a", 2)]
    assert history(s, "a") == [
        (1.0, "load failed", "tensor w is damaged", "pid 102", "", 0, 0, 1.0),
        (3.5, "load cancelled", "nobody waits for it", "", "", 0, 0, 2.5),
    ]


def test_use_leaves_no_history() -> None:
    s = Script()
    s.resident("a")
    before = s.machine.history()
    for conn in (1, 2):
        assert isinstance(s.attach("a", 2, conn=conn)[0], Grant)
        s.release("a", conn=conn)
    s.tell(WarmAsked(1, 99, FOREVER, key("a"), "a:latest", 2))
    assert s.machine.history() == before
    assert s.machine.history(key("nobody").digest) == []
