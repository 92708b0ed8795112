"""Memory is finite: who gets it, who is told why not, and what waits."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.raw import Raw, shared_bytes, until

from trims.shmindex.reader import read
from trims.wire.messages import Attach, Attached, Evict, Pin, Refused, Result, Status, Stop, Unpin, WaitFor, Warm

MIB = 1 << 20


@pytest.fixture
def small(managers):
    return managers(budget_host="10MiB")


def resident(manager) -> set[str]:
    return {r.ref.partition(":")[0] for r in read(f"{manager.runtime.directory}/index").residencies}


def test_more_than_the_budget_is_refused_and_evicts_nothing(put, small):
    put("a", 3 * MIB)
    put("huge", 20 * MIB)
    with Raw(small.runtime.socket) as client:
        client.ask(Warm, ref="a")
        answer = client.ask(Warm, ref="huge")
        assert (answer.code, answer.details["place"]) == ("no-room", "host")
        assert answer.details["need"] > answer.details["budget"] == 10 * MIB
        assert resident(small) == {"a"}


def test_the_least_recently_used_goes_first(put, small):
    for name in "abc":
        put(name, 4 * MIB)
    with Raw(small.runtime.socket) as client:
        client.ask(Warm, ref="a")
        client.ask(Warm, ref="b")
        client.release(client.attach("a").lease)
        (item,) = client.ask(Warm, ref="c").items
        assert [v["ref"] for v in item["victims"]] == ["b:latest"]
        assert resident(small) == {"a", "c"}


def test_no_room_names_who_holds_what(put, small):
    import os

    for name in "abc":
        put(name, 4 * MIB)
    with Raw(small.runtime.socket) as client:
        client.attach("a")
        client.ask(Pin, ref="b", owner="me", reason="mine")
        answer = client.ask(Attach, ref="c", timeout=0.1)
        assert answer.code == "no-room", answer
        why = {b["ref"]: b for b in answer.details["blockers"]}
        assert why["a:latest"]["why"] == "leased"
        assert why["a:latest"]["holders"][0]["pid"] == os.getpid()
        assert why["b:latest"]["pins"] == [{"owner": "me", "reason": "mine"}]
        assert shared_bytes(small.pid) < 10 * MIB


def test_a_request_waits_for_room(put, small):
    for name in "ab":
        put(name, 6 * MIB)
    with Raw(small.runtime.socket) as holder, Raw(small.runtime.socket) as waiter:
        lease = holder.attach("a").lease
        waiter.send(Attach(id=1, ref="b", timeout=30))
        until(lambda: holder.ask(Status).items[0]["queue"] == 1, holder)
        holder.release(lease)
        assert isinstance(waiter.answer(1), Attached)
        assert resident(small) == {"b"}


def test_the_sum_of_regions_never_exceeds_the_budget(put, small):
    """Measured in the manager's own descriptors, while eight models pass through room for two."""
    names = [f"m{n}" for n in range(8)]
    for name in names:
        put(name, 4 * MIB)

    def use(name: str) -> int:
        with Raw(small.runtime.socket) as client:
            lease = client.attach(name).lease
            seen = shared_bytes(small.pid)
            client.release(lease)
            return seen

    with ThreadPoolExecutor(len(names)) as pool:
        peak = max(pool.map(use, names))
    assert 0 < peak <= 10 * MIB


def test_pins_hold_and_expire(put, small):
    put("a", 4 * MIB)
    with Raw(small.runtime.socket) as client:
        client.ask(Pin, ref="a", owner="me", expires=0.2)
        assert client.ask(Evict, ref="a").code == "pinned"
        until(lambda: isinstance(client.ask(Evict, ref="a"), Result), client)
        assert client.ask(Unpin, ref="a").items == []


def test_ttl_ends_a_residency(put, managers):
    manager = managers(residency_ttl="100ms")
    put("a")
    with Raw(manager.runtime.socket) as client:
        client.ask(Warm, ref="a")
        client.ask(WaitFor, condition="gone", ref="a", timeout=20)
        assert resident(manager) == set()
        assert client.ask(Status).items[0]["counters"]["expired"] == 1


def test_spare_pages_give_way(put, managers):
    manager = managers(budget_host="10MiB", budget_spare="4MiB")
    put("a", 4 * MIB)
    put("b", 8 * MIB)
    with Raw(manager.runtime.socket) as client:
        assert client.ask(Status).items[0]["budgets"]["host"]["spare"] == 4 * MIB
        client.ask(Warm, ref="a")
        client.ask(Evict, ref="a")
        assert client.ask(Warm, ref="b").items[0]["outcome"] == "warmed"
        use = client.ask(Status).items[0]["budgets"]["host"]
        assert use["spare"] < 4 * MIB
        assert use["used"] <= use["budget"]
        client.ask(Evict, ref="b")
        client.ask(WaitFor, condition="gone", ref="b")
        until(lambda: client.ask(Status).items[0]["budgets"]["host"]["spare"] == 4 * MIB, client)


def test_a_load_that_nobody_wants_is_given_up(put, manager):
    put("big", 40 * MIB)
    with Raw(manager.runtime.socket) as watcher:
        client = Raw(manager.runtime.socket)
        client.send(Attach(id=1, ref="big"))
        client.receive()  # progress: it is being loaded
        client.close()
        watcher.ask(WaitFor, condition="gone", ref="big")
        assert shared_bytes(manager.pid) == 0


def test_a_draining_stop_waits_for_the_last_lease(put, manager):
    put("a")
    with Raw(manager.runtime.socket) as client, Raw(manager.runtime.socket) as stopper:
        lease = client.attach("a").lease
        stopper.send(Stop(id=1, timeout=30))
        until(lambda: isinstance(client.ask(Attach, ref="a"), Refused), client)
        client.release(lease)
        assert isinstance(stopper.answer(1), Result)
        assert stopper.closed_by_peer()


def test_a_draining_stop_gives_up(put, manager):
    put("a")
    with Raw(manager.runtime.socket) as client:
        client.attach("a")
        assert client.ask(Stop, timeout=0.05).code == "in-use"
        assert client.attach("a")
