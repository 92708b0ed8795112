"""The ways out: being given up, being freed, and not being brought in after all."""

from __future__ import annotations

from trims.residency.core import Core
from trims.residency.effects import Cancel
from trims.residency.events import WaitAsked
from trims.residency.history import Cause
from trims.residency.records import Place, Residency
from trims.residency.states import ABSENT, DOOMED, LOADING
from trims.units import format_size


def give_away(core: Core, residency: Residency, cause: Cause, what: str = "evicted") -> None:
    """Doom a resident one: it goes now, or with its last lease. The one way out of being resident."""
    held, leases = core.held(residency), core.leases.count(residency.key)
    core.tell(residency, "doomed" if held else what, cause, core.now - residency.since)
    core.move(residency, "given up")
    core.counters["evictions"] += 1
    core.counters["bytes_evicted"] += residency.nbytes
    if residency.wanted:
        residency.wanted = False
        core.journal()
    core.settle(residency)
    after = f"; {leases} leases hold it" if leases else ""
    core.log(f"evict {residency.ref} ({format_size(residency.nbytes)}) from {residency.key.place}: {cause}{after}")
    if not held:
        core.free(residency)


def hold_ended(core: Core, residency: Residency) -> None:
    """A lease, or a load that read from it, has ended: a doomed one goes with the last of them."""
    if residency.state == DOOMED and not residency.freeing and not core.held(residency):
        core.tell(residency, "freed", Cause("nobody holds it any more"))
        core.free(residency)  # once, however many leases of one connection end together


def gone(core: Core, residency: Residency) -> None:
    """It is absent now. Whoever has come to want it meanwhile stands in the line."""
    key = residency.key
    place = core.places[key.place]
    place.overtakers.pop(key, None)
    residency.freeing, residency.hits, residency.victims = False, 0, ()
    _tell_watches(core, residency)
    core.touched.add("")
    if residency.waiters:
        place.line.setdefault(key, residency)
        core.dirty[place.name] = None
    else:
        leave_line(core, place, residency)


def _tell_watches(core: Core, residency: Residency) -> None:
    """Note it where its going is awaited: the next client may have it loaded again before anybody looks."""
    key = residency.key
    left = any(r.state != ABSENT for r in core.of_digest(key.digest, key.place))
    for subject in ("", key.digest):
        for watch in core.watches.get(subject, {}).values():
            watch.left.discard(key)
            event = watch.event
            if isinstance(event, WaitAsked) and event.condition == "gone" and event.place == key.place and subject:
                watch.acted = watch.acted or not left


def leave_line(core: Core, place: Place, residency: Residency) -> None:
    """An absent one that nobody waits for any more: parked if it is pinned or wanted, forgotten if not."""
    if residency.waiters:
        return
    place.line.pop(residency.key, None)
    core.dirty[place.name] = None
    if residency.pins or residency.wanted:
        place.parked[residency.key] = residency
    else:
        place.parked.pop(residency.key, None)
        core.forget(residency)


def abandon(core: Core, residency: Residency, why: str) -> None:
    """Stop bringing it in, if nobody wants it any more."""
    if residency.waiters:
        return
    if residency.state == ABSENT:
        leave_line(core, core.places[residency.key.place], residency)
    elif residency.state == LOADING and not (residency.pins or residency.wanted):
        stop_load(core, residency, why)


def stop_load(core: Core, residency: Residency, why: str) -> None:
    """Cancel a load, or take the promise back where the Load has not gone out."""
    core.log(f"{residency.ref} is not loaded to {residency.key.place} any more: {why}", "debug")
    core.counters["loads_cancelled"] += 1
    if residency.load:
        core.tell(residency, "load cancelled", Cause(why), core.now - residency.load_began)
        core.move(residency, "abandoned")
        core.settle(residency)
        core.emit(Cancel(residency.key, residency.load))
        return
    core.places[residency.key.place].promised.pop(residency.key, None)
    core.move(residency, "withdrawn")
    core.settle(residency)
    gone(core, residency)
