"""Who gets room, in which order, and when a Load goes out.

Whoever needs room stands in the *line* of its place, first come first served. Room is *planned* all at once: a plan
that cannot be met touches nothing, and its key stays in the line. A planned key is *promised* its bytes; its victims
are freed, and its Load goes out only when what exists leaves room for it, so that the sum of regions never exceeds the
budget. Promises are kept in order.

While the head of the line waits, a later one may start before it only if it and all others that did so since leave
the head its bytes within the budget. So when everything that was there before has gone or may go, the head has its
plan: nobody starves it, whatever their number. (An attach to what is resident takes no room and is never delayed.)

Between users who do not trust each other that would let one of them stop all others. There `turn` bounds it: what has
waited for so long keeps its place, but is kept no room any more, and the head is the first that has not.

What others take out of the budget (`Reserved`) can break promises: then spare pages go, then the youngest promises are
taken back to the front of the line, then idle models are evicted.
"""

from __future__ import annotations

from trims.residency import answers
from trims.residency.core import Core
from trims.residency.effects import ShrinkSpare
from trims.residency.events import Reserved
from trims.residency.history import Cause, name_of
from trims.residency.leaving import give_away, leave_line
from trims.residency.policy import Room, Shortage, plan_room
from trims.residency.records import IDLE, KNOWN, MOVING, PINNED, PROMISED, Place, Residency
from trims.residency.states import ABSENT, LOADING, RESIDENT
from trims.residency.timers import FOREVER
from trims.residency.wishes import withdraw
from trims.units import format_size


def plan(core: Core, place: Place, need: int, evict: bool) -> Room | Shortage:
    """How to have `need` bytes free in `place` for somebody's request, by evicting or by spare pages alone."""
    evict = evict and place.policy.evicts
    evictable = place.sums[IDLE] if evict else 0
    outcome = plan_room(need, place.free, place.spare_left, evictable, core.order(place) if evict else ())
    if place.policy.sweeps and isinstance(outcome, Room) and outcome.victims:
        spare = max(0, need - place.free - evictable)
        return Room(spare, tuple(key for key, _ in core.order(place)))
    return outcome


def hopeless(core: Core, place: Place, residency: Residency) -> bool:
    """Whether waiting is no use: nothing that can go away by itself would make room for it."""
    need = residency.nbytes
    if not residency.may_evict:
        return isinstance(plan(core, place, need, evict=False), Shortage)
    if not place.policy.evicts:
        return need > place.budget - _staying(core, place)
    if need <= place.budget - place.sums[PINNED]:
        return False
    for_ever = sum(
        r.nbytes
        for r in core.residencies.values()
        if r.kind == PINNED and r.key.place == place.name and any(p.expires == float("inf") for p in r.pins.values())
    )
    return need > place.budget - for_ever


def _staying(core: Core, place: Place) -> int:
    """Bytes in a place whose policy never evicts that will not go by themselves either: all that is there or being
    loaded, but for what has a time to live. (What is doomed goes, and so may what others have taken.)"""
    stays = sum(place.sums[kind] for kind in (PROMISED, MOVING, *KNOWN))
    if not core.mortal:
        return stays
    return stays - sum(
        r.counted
        for r in core.residencies.values()
        if r.key.place == place.name
        and r.state in (LOADING, RESIDENT)
        and r.ttl != FOREVER
        and all(pin.expires != FOREVER for pin in r.pins.values())
    )


def pump(core: Core, place: Place) -> None:
    """Give out all the room there is."""
    if place.free < 0:
        _relieve(core, place)
        place.over = place.free < 0
    else:
        place.over = False
    _serve_line(core, place)
    if place.parked and place.head is None:
        _retry_parked(core, place)
    for residency in list(place.promised.values()) if place.promised else ():
        if place.physical + residency.nbytes > place.budget:
            break
        del place.promised[residency.key]
        core.begin_load(residency)


def _serve_line(core: Core, place: Place) -> None:
    head, beside = None, 0
    for residency in list(place.line.values()):
        if hopeless(core, place, residency):
            give_up(core, place, residency)
        elif head is not None and residency.nbytes + sum(place.overtakers.values()) > beside:
            continue
        elif _start(core, place, residency, residency.may_evict):
            if head is not None:
                place.overtakers[residency.key] = residency.nbytes
        elif head is None and core.now < residency.since + core.turn:
            head, beside = residency, place.budget - residency.nbytes
            _lead(core, place, head)
    if head is None:
        _lead(core, place, None)


def _lead(core: Core, place: Place, head: Residency | None) -> None:
    """Note who is kept room for, and when that ends."""
    key = head.key if head is not None else None
    if place.head != key:
        place.head = key
        place.overtakers.clear()
    ends = head.since + core.turn if head is not None else FOREVER
    if core.timers.get(("turn", place.name)) != ends:
        core.timers.set(("turn", place.name), ends)


def _start(core: Core, place: Place, residency: Residency, evict: bool) -> bool:
    """Promise `residency` its bytes, if there is a plan."""
    outcome = plan(core, place, residency.nbytes, evict)
    if isinstance(outcome, Shortage):
        return False
    residency.victims = tuple(answers.victim_item(core.residencies[key]) for key in outcome.victims)
    if outcome.victims or outcome.spare:
        asker = next((name_of(w.who) for w in residency.waiters.values()), "")
        make_room(core, place, outcome, f"room for {residency.ref} ({format_size(residency.nbytes)})", asker)
    place.line.pop(residency.key, None)
    place.parked.pop(residency.key, None)
    place.promised[residency.key] = residency
    core.move(residency, "promised")
    core.settle(residency)
    return True


def make_room(core: Core, place: Place, room: Room, why: str, by: str = "") -> None:
    """Carry a plan out: spare pages and victims go, for that reason and because `by` asked."""
    if room.spare:
        place.shrinking += room.spare
        core.emit(ShrinkSpare(place.name, room.spare))
    for rank, key in enumerate(room.victims, 1):
        place.policy.chosen(key)
        give_away(core, core.residencies[key], Cause(why, by, place.policy.name, rank, len(room.victims)))


def give_up(core: Core, place: Place, residency: Residency) -> None:
    """Refuse everybody who waits for an absent one, for want of room."""
    error = answers.no_room(core, place, residency.ref, residency.nbytes, but=residency)
    for waiter in list(residency.waiters.values()):
        withdraw(core, residency, waiter)
        if waiter.silent:
            core.log(f"{residency.ref} is not warmed: {error}", "warning")
            core.drop(waiter.ask)
        else:
            core.refuse(waiter.ask, answers.addressed(error, residency.ref, waiter.event.ref))
    leave_line(core, place, residency)


def _retry_parked(core: Core, place: Place) -> None:
    """What an earlier life kept: pins until they fit, evicting if need be; the rest only into room that is free."""
    for residency in list(place.parked.values()):
        if not residency.pins:
            if not _start(core, place, residency, evict=False):
                core.log(f"{residency.ref} is not warmed again: no room on {place.name}", "warning")
                residency.wanted = False
                core.journal()
                leave_line(core, place, residency)
        elif place.sums[PINNED] + residency.nbytes <= place.pin_cap:
            _start(core, place, residency, evict=True)


def reserve(core: Core, event: Reserved) -> None:
    """Others took or gave back memory of the place. News of spare pages is the answer to ShrinkSpare."""
    place = core.places.get(event.place)
    if place is None:
        return
    before = place.physical
    if event.nbytes:
        place.reserved[event.name] = (event.nbytes, event.spare)
    else:
        place.reserved.pop(event.name, None)
    if event.spare:
        place.shrinking = 0
    if place.physical > max(before, place.budget):
        place.excused = max(place.excused, place.physical)
    core.dirty[place.name] = None


def _relieve(core: Core, place: Place) -> None:
    """Bring what is promised and what exists back under the budget, as far as can be."""
    over = -place.free
    spare = min(over, place.spare_left)
    if spare:
        make_room(core, place, Room(spare), "")
        over -= spare
    while over > 0 and place.promised:
        _, residency = place.promised.popitem()
        core.move(residency, "withdrawn")
        core.settle(residency)
        over -= residency.nbytes
        if residency.waiters:
            place.line = {residency.key: residency, **place.line}
        else:
            leave_line(core, place, residency)
    order = list(core.order(place, young=True))
    for key, nbytes in sorted(order, key=lambda entry: not core.residencies[entry[0]].ripe):
        if over <= 0:
            break
        over -= nbytes
        place.policy.chosen(key)
        give_away(core, core.residencies[key], Cause("others took memory and the place is over its budget"))


def check_promises(place: Place) -> None:
    """Raise AssertionError unless the line, the promised and the parked are what they must be."""
    assert all(r.state == ABSENT and r.waiters for r in place.line.values()), "the line holds what waits for nothing"
    assert all(r.state == LOADING and not r.load for r in place.promised.values()), "a promise to what needs none"
    assert all(r.state == ABSENT and not r.waiters for r in place.parked.values()), "parked, but somebody waits"
