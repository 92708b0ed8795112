"""Giving residencies up on request: by name, by rule, and for good (`Forget`); leases that end; regions that are freed.

By name it acts on every variant of the model in the place, or on none. What is leased is refused (or doomed by force,
or waited for); what is pinned is refused, also by force. By rule it takes only what is idle. An eviction is answered
when the memory is back; a doomed one that clients hold is answered at once, unless it was asked to wait.
"""

from __future__ import annotations

from trims.errors import TrimsError
from trims.residency import answers, loading, room
from trims.residency.core import Core
from trims.residency.events import EvictAsked, ForgetAsked, Freed, Key, Lost
from trims.residency.history import Cause, name_of
from trims.residency.leases import LeaseView
from trims.residency.leaving import abandon, give_away, gone, hold_ended, leave_line, stop_load
from trims.residency.policy import Room, Shortage, plan_room
from trims.residency.records import UNHELD, Residency, Watch
from trims.residency.states import ABSENT, DOOMED, LOADING, RESIDENT
from trims.residency.wishes import refuse_all, take_pin
from trims.units import format_age, format_size


def lease_ended(core: Core, lease: LeaseView) -> None:
    """A client let go, or is gone."""
    residency = core.residencies[lease.key]
    core.counters["releases"] += 1
    residency.last_use = core.now
    core.settle(residency)
    if residency.kind in UNHELD and core.places[lease.key.place].policy.eager:
        give_away(core, residency, Cause("its last lease ended", policy=core.policy))
    else:
        hold_ended(core, residency)


def freed(core: Core, event: Freed) -> None:
    """The memory is back."""
    residency = core.residencies.get(event.key)
    if residency is None or not residency.freeing:
        raise core.impossible(event.key, residency.state if residency else ABSENT, "freed")
    if event.measured is not None:
        _note_measured(core, event.key, event.measured)
    core.move(residency, "freed")
    core.settle(residency)
    gone(core, residency)


def _note_measured(core: Core, key: Key, nbytes: int) -> None:
    """Say in the answers that wait for its going what came of it."""
    for subject in ("", key.digest):
        for watch in core.watches.get(subject, {}).values():
            if key in watch.left:
                watch.items = tuple(
                    {**item, "measured": nbytes} if (item.get("variant"), item.get("place")) == key[1:] else item
                    for item in watch.items
                )


def lost(core: Core, event: Lost) -> None:
    """Its memory is gone: nobody gets it any more. Pins stand, and have it loaded again."""
    residency = core.residencies.get(event.key)
    if residency is not None and residency.state == RESIDENT:
        give_away(core, residency, Cause("its memory is gone: the process that owned it has ended"))


def expired(core: Core, key: Key) -> None:
    """Its time to live is over."""
    residency = core.residencies[key]
    core.counters["expired"] += 1
    give_away(core, residency, Cause(f"it was idle for {format_age(residency.ttl)}, its time to live"), "expired")


def evict(core: Core, event: EvictAsked) -> None:
    """An eviction, by name or by rule."""
    watch = Watch(event, core.clients[event.conn].who)
    if event.place not in core.places:
        core.refuse(watch.ask, loading.no_place(event.place))
    elif event.digest:
        attempt(core, watch)
    else:
        _by_rule(core, watch, event)


def attempt(core: Core, watch: Watch) -> None:
    """Evict by name if that can be done now; else refuse, or wait on."""
    event = watch.event
    assert isinstance(event, EvictAsked)
    found = core.of_digest(event.digest, event.place)
    there = [r for r in found if r.state != ABSENT]
    name = f"{event.ref or (there[0].ref if there else event.digest[:12])} is not evicted from {event.place}"
    busy = [r for r in there if r.state != DOOMED and (core.leases.count(r.key) or r.live_waiters())]
    held = [r for r in there if r.state != DOOMED and r.pins]
    if held:
        core.refuse(watch.ask, answers.pinned(name, held))
    elif busy and not event.force and event.wait and not event.dry_run:
        if watch.ask not in core.pending:
            core.wait(watch)
    elif busy and not event.force:
        core.refuse(watch.ask, answers.in_use(core, name, busy, "--wait waits for them, --force dooms it"))
    elif not there:
        _drop_wishes(core, [] if event.dry_run else found)
        core.reply(watch.ask, (_absent(event),))
    elif event.dry_run:
        core.reply(watch.ask, tuple(answers.evict_item(core, r, "would-evict") for r in there))
    else:
        _drop_wishes(core, [r for r in found if r.state == ABSENT])
        _carry_out(core, watch, event, there, "by force" if event.force else "by name")


def _carry_out(core: Core, watch: Watch, event: EvictAsked, there: list[Residency], why: str) -> None:
    """Evict these, and answer when they are gone (those that clients hold: only if asked to wait)."""
    held = set() if event.wait else {r.key for r in there if core.leases.count(r.key)}
    watch.items = tuple(answers.evict_item(core, r, "doomed" if r.key in held else "evicted") for r in there)
    watch.acted = True
    for residency in there:
        let_go(core, residency, Cause(why, name_of(watch.who)))
    watch.left = {r.key for r in there if r.state == DOOMED and r.key not in held}
    if not watch.left:
        core.reply(watch.ask, watch.items)
    elif watch.ask not in core.pending:
        core.wait(watch)


def let_go(core: Core, residency: Residency, cause: Cause) -> None:
    """Doom one that is there, whatever it is doing."""
    if residency.state == RESIDENT:
        give_away(core, residency, cause)
    elif residency.state == LOADING:
        what = f"{residency.ref} was not loaded to {residency.key.place}"
        refuse_all(core, residency, TrimsError(what, f"it was evicted while it was loading, {cause}"))
        stop_load(core, residency, f"evicted {cause}")


def _drop_wishes(core: Core, absent: list[Residency]) -> None:
    """Forget wishes to load what is being evicted, where nobody waits for the answer."""
    for residency in absent:
        if residency.live_waiters() or residency.pins:
            continue
        refuse_all(core, residency, {})
        leave_line(core, core.places[residency.key.place], residency)


def _absent(event: EvictAsked) -> answers.Item:
    fields = {"ref": event.ref, "digest": event.digest, "variant": "", "place": event.place}
    return {**fields, "nbytes": 0, "measured": None, "outcome": "absent", "holders": []}


def _by_rule(core: Core, watch: Watch, event: EvictAsked) -> None:
    place = core.places[event.place]
    order = [
        (key, nbytes)
        for key, nbytes in core.order(place, young=True)
        if event.idle is None or core.now - core.residencies[key].last_use >= event.idle
    ]
    rule = "all idle" if event.idle is None else f"idle for {format_age(event.idle)}"
    plan: Room | Shortage = Room(0, tuple(key for key, _ in order))
    if event.until_free is not None:
        rule = f"until {format_size(event.until_free)} are free"
        evictable = sum(nbytes for _, nbytes in order)
        plan = plan_room(event.until_free, place.free, place.spare_left, evictable, order)
    if isinstance(plan, Shortage):
        assert event.until_free is not None
        core.refuse(watch.ask, answers.not_that_free(core, place, event.until_free))
        return
    victims = [core.residencies[key] for key in plan.victims]
    if event.dry_run:
        core.reply(watch.ask, tuple(answers.evict_item(core, r, "would-evict") for r in victims))
        return
    room.make_room(core, place, Room(plan.spare), "")
    _carry_out(core, watch, event, victims, rule)


def forget(core: Core, event: ForgetAsked) -> None:
    """The model leaves the store: let go of it everywhere, or refuse and touch nothing."""
    watch = Watch(event, core.clients[event.conn].who, acted=True)
    found = core.of_digest(event.digest)
    held = [r for r in found if r.pins]
    busy = [r for r in found if core.leases.count(r.key) or r.live_waiters()]
    name = found[0].ref if found else ""
    if held and not event.force:
        core.refuse(watch.ask, answers.pinned(f"{name} is not given up", held))
        return
    if busy and not event.force:
        core.refuse(watch.ask, answers.in_use(core, f"{name} is not given up", busy))
        return
    there = [r for r in found if r.state in (LOADING, RESIDENT)]
    for residency in found:
        for owner in list(residency.pins):
            take_pin(core, residency, owner)
        if residency.state in (ABSENT, DOOMED):
            error = TrimsError(f"{residency.ref} was not loaded to {residency.key.place}", "it leaves the store")
            refuse_all(core, residency, error)
            abandon(core, residency, "it leaves the store")
        else:
            let_go(core, residency, Cause("it leaves the store", name_of(watch.who)))
    watch.items = ({"digest": event.digest, "evicted": len(there)},)
    watch.left = {r.key for r in found if r.state == DOOMED and not core.leases.count(r.key)}
    if watch.left:
        core.wait(watch)
    else:
        core.reply(watch.ask, watch.items)


def too_late(core: Core, watch: Watch, event: EvictAsked | ForgetAsked) -> None:
    """Its time has run out: what is on its way out is done; what clients hold is not."""
    if watch.acted:
        held = [core.residencies[key] for key in watch.left if core.leases.count(key)]
    else:
        held = [r for r in core.of_digest(event.digest) if isinstance(event, EvictAsked) and r.key.place == event.place]
    if held:
        ref = event.ref if isinstance(event, EvictAsked) and event.ref else held[0].ref
        what = f"{ref} is not evicted from {held[0].key.place} yet"
        core.refuse(watch.ask, answers.in_use(core, what, held, "--force dooms it" if not watch.acted else ""))
    else:
        core.reply(watch.ask, watch.items)
