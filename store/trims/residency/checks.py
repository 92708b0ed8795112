"""The invariants of the machine, checked over its whole state: what must hold whenever it is at rest."""

from __future__ import annotations

from collections import Counter

from trims.residency import room
from trims.residency.core import Core
from trims.residency.policy import Shortage
from trims.residency.records import KINDS, KNOWN, PROMISED, UNHELD, YOUNG, Place, Waiter
from trims.residency.states import ABSENT, DOOMED, LOADING, RESIDENT


def check(core: Core) -> None:
    """Raise AssertionError, saying what is wrong."""
    core.leases.check()
    for place in core.places.values():
        _check_place(core, place)
    _check_residencies(core)
    _check_requests(core)


def _check_place(core: Core, place: Place) -> None:
    here = [r for r in core.residencies.values() if r.key.place == place.name]
    for kind in KINDS:
        assert place.sums[kind] == sum(r.nbytes for r in here if r.kind == kind), f"the sum of {kind} is wrong"
    assert place.existing == sum(place.sums[kind] for kind in KINDS if kind != PROMISED), "what exists is miscounted"
    assert place.physical <= max(place.budget, place.excused), "more exists than the budget allows"
    if place.sums[PROMISED]:
        assert place.free >= 0, "more is promised than will be free"
    victims = list(place.policy.victims(core.now))
    assert len(victims) == len(set(victims)) and set(victims) == {r.key for r in here if r.kind in UNHELD}, (
        "the policy would take what it may not, or misses what it may"
    )
    assert len(place.policy) == sum(r.kind in KNOWN for r in here), "the policy knows what is not there"
    for r in here:
        young = r.state == RESIDENT and core.now < r.since + core.min_resident
        assert r.kind not in UNHELD or (r.kind == YOUNG) == young, f"its age is wrong: {r.key}"
    room.check_promises(place)
    keeping = [r for r in place.line.values() if core.now < r.since + core.turn]
    assert place.head == (keeping[0].key if keeping else None), "the wrong one is kept room for"
    for r in place.line.values():
        outcome = room.plan(core, place, r.nbytes, r.may_evict)
        assert isinstance(outcome, Shortage), "it waits though there is room"
        if r.key == place.head:
            overtaken = sum(place.overtakers.values())
            assert not overtaken or overtaken + r.nbytes <= place.budget, "overtakers starve the head of the line"
            break


def _check_residencies(core: Core) -> None:
    readers = Counter(r.source for r in core.residencies.values() if r.source is not None)
    for key, r in core.residencies.items():
        place = core.places[key.place]
        assert r.key == key and key in core.by_digest[key.digest]
        assert not core.held(r) or r.state in (RESIDENT, DOOMED), f"a hold on what is {r.state}: {key}"
        assert bool(r.load) <= (r.state in (LOADING, DOOMED)), f"a load of what is {r.state}: {key}"
        assert not (r.state == RESIDENT and r.waiters), f"somebody waits for what is there: {key}"
        assert r.readers == readers[key], f"read from by others than it says: {key}"
        assert r.source is None or r.load, f"reads without loading: {key}"
        if r.state == LOADING:
            assert r.waiters or r.pins or r.wanted, f"nobody wants what is loading: {key}"
            assert (key in place.promised) == (not r.load), f"neither promised nor loading: {key}"
        elif r.state == DOOMED:
            assert bool(core.held(r)) + bool(r.load) + r.freeing == 1, f"doomed, but not on its way out: {key}"
        elif r.state == ABSENT:
            assert (key in place.line) == bool(r.waiters), f"waits for room outside the line: {key}"
            assert (key in place.parked) == (not r.waiters), f"absent, and nobody wants it: {key}"
    for digest, keys in core.by_digest.items():
        assert keys and all(key in core.residencies and key.digest == digest for key in keys)


def _check_requests(core: Core) -> None:
    assert not core.dirty and not core.touched and not core.prompt, "not at rest"
    for ask, waiting in core.pending.items():
        assert waiting.ask == ask
        assert core.timers.get(("ask", ask)) == waiting.event.deadline > core.now, "a request outlives its deadline"
        if isinstance(waiting, Waiter):
            assert core.residencies[waiting.event.key].waiters[ask] is waiting, "a waiter at no key"
            if waiting.silent:
                continue
        else:
            assert core.watches[waiting.subject][ask] is waiting, "a watch that nobody looks at"
        assert ask[1] in core.clients[ask[0]].asks, "a request of nobody"
    waiters = sum(len(r.waiters) for r in core.residencies.values())
    watches = sum(len(group) for group in core.watches.values())
    assert waiters + watches == len(core.pending), "a request that is forgotten"
    assert core.waiting == Counter(waiting.who.uid for waiting in core.pending.values()), "users' requests miscounted"
    assert sum(len(c.asks) for c in core.clients.values()) == sum(ask[0] >= 0 for ask in core.pending)
    for lease in core.leases:
        assert lease.conn in core.clients, "a lease of nobody"
