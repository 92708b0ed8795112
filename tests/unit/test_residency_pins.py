"""Pins: owners, expiry, the cap, and what an earlier life pinned."""

from __future__ import annotations

from helpers.residency_script import Script, acts, cancel, free, items, key, load, logs, refusal

from trims.residency.effects import Journal, Load, Publish, Refuse, Reply
from trims.residency.events import PinAsked, Tick
from trims.residency.views import PinView


def owners(s: Script) -> list[str]:
    return sorted(p.owner for p in s.machine.pins())


def test_a_pin_loads_what_is_absent_and_stands_from_the_start() -> None:
    s = Script()
    effects = s.tell(PinAsked(1, 1, 60.0, key("a"), "a:latest", 4, "ann", "demo", 99.0))
    assert effects == [Publish(key("a")), Journal(), Load(key("a"), 1, "a:latest", 4)]
    assert list(s.machine.pins()) == [PinView(key("a"), "a:latest", "ann", "demo", 99.0)]
    (item,) = items(s.loaded("a"))
    assert item["outcome"] == "warmed"
    assert s.machine.use("host").pinned == 4


def test_what_is_pinned_is_no_victim() -> None:
    s = Script()
    s.resident("a", "b", nbytes=5)
    s.pin("a", 5)
    assert s.attach("c", 5) == [free("b")]


def test_several_owners_pin_and_the_same_one_replaces() -> None:
    s = Script()
    s.resident("a")
    s.pin("a", 2, owner="ann")
    s.pin("a", 2, owner="bob")
    s.pin("a", 2, owner="ann", expires=50)
    assert [(p.owner, p.expires) for p in s.machine.pins()] == [("ann", 50), ("bob", float("inf"))]


def test_unpin_by_owner_by_model_and_all() -> None:
    s = Script()
    s.resident("a", "b")
    for model in "ab":
        for owner in ("ann", "bob"):
            s.pin(model, 2, owner=owner)
    assert items(s.unpin("a", "ann")) == ({"ref": "a:latest", "digest": key("a").digest, "owner": "ann"},)
    assert len(items(s.unpin(owner="bob"))) == 2
    assert items(s.unpin("a")) == ()
    assert len(items(s.unpin())) == 1
    assert s.evict() == [free("a"), free("b")]


def test_unpinned_it_starts_to_live_out_its_time() -> None:
    s = Script(ttl=10)
    s.resident("a")
    s.pin("a", 2)
    s.later(100)
    assert s.state("a") == "resident"
    s.unpin("a")
    assert s.machine.next_deadline() == s.now + 10


def test_a_pin_expires() -> None:
    s = Script()
    s.resident("a")
    s.pin("a", 2, expires=20)
    assert s.machine.next_deadline() == 20
    s.now = 20
    effects = s.tell(Tick())
    assert effects[:2] == [Publish(key("a")), Journal()]
    assert logs(effects) == ["the pin of ann on a:latest (host) has expired"]
    assert s.state("a") == "resident" and owners(s) == []


def test_a_load_that_only_a_pin_wanted_goes_with_it() -> None:
    s = Script()
    s.pin("a", 2, conn=1)
    assert s.close(1) == [], "a pin outlives its connection"
    assert s.pin("a", 2, conn=3, owner="ann", expires=90) == []
    refused, cancelled, answer = s.unpin("a", conn=2)
    assert isinstance(refused, Refuse) and refused.conn == 3 and "was dropped" in str(refused.error["why"])
    assert cancelled == cancel("a", 1)
    assert isinstance(answer, Reply)


def test_over_the_cap_is_refused_now() -> None:
    s = Script(pin_cap=6)
    s.pin("a", 4)
    error = refusal(s.pin("b", 4, conn=2))
    assert error["code"] == "no-room"
    assert "4B are pinned and at most 6B may be" in error["why"]
    assert owners(s) == ["ann"]
    assert isinstance(s.pin("a", 4, owner="bob", conn=2), list), "another pin of the same bytes costs nothing"
    assert owners(s) == ["ann", "bob"]


def test_a_pin_that_finds_no_room_leaves_nothing() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    s.pin("b", 8, conn=2, wait=3)
    assert owners(s) == ["ann"]
    (answer,) = s.later(3)
    assert isinstance(answer, Refuse) and answer.error["code"] == "no-room"
    assert owners(s) == []
    assert s.release("a") == []


def test_a_failed_load_drops_the_pin() -> None:
    s = Script()
    s.pin("a", 4)
    (refused,) = s.loaded("a", fail=True)
    assert isinstance(refused, Refuse)
    assert owners(s) == []


def test_pins_of_an_earlier_life_wait_for_room_as_long_as_it_takes() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    assert s.restore("p", 6, "ann") == []
    assert s.restore("q", 99, "ann") == []
    assert owners(s) == ["ann", "ann"]
    assert s.release("a") == [free("a")]
    assert s.freed("a") == [load("p", 2, 6)]
    assert owners(s) == ["ann", "ann"], "q cannot ever fit, and stays written down"
    assert s.loaded("p") == [] and s.machine.use("host").pinned == 6


def test_a_refused_pin_gives_way_to_the_one_it_replaced() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    s.restore("p", 6, "ann")
    s.pin("p", 6, conn=2, owner="ann", expires=500, wait=3)
    s.later(3)
    assert [(p.owner, p.reason) for p in s.machine.pins()] == [("ann", "journal")]
    s.release("a")
    assert s.freed("a") == [load("p", 2, 6)]


def test_a_refused_pin_leaves_the_one_that_replaced_it() -> None:
    s = Script()
    s.attach("a", 8)
    s.loaded("a")
    s.restore("p", 6, "ann")
    s.pin("p", 6, conn=2, expires=500, wait=3)
    s.pin("p", 6, conn=3, expires=600, wait=9)
    s.later(3)
    assert [p.expires for p in s.machine.pins()] == [600]
    s.later(6)
    assert [p.reason for p in s.machine.pins()] == ["journal"], "and that one's refusal goes back to the first"


def test_pins_of_an_earlier_life_respect_the_cap_and_expire() -> None:
    s = Script(pin_cap=6)
    assert s.restore("p", 6, "ann") == [load("p", 1, 6)]
    s.loaded("p")
    assert s.restore("q", 4, "bob", expires=30) == []
    s.later(30)
    assert owners(s) == ["ann"]
    assert acts(s.tell(Tick())) == []
