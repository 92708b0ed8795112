"""Requests that wait for something to become true: `wait`, `evict --wait`, `stop`; and what a deadline does to each.

Watches are looked at when an event is done with, and only those about a model that it touched; watches about a place
or about everything are looked at every time.
"""

from __future__ import annotations

from trims.errors import TimedOut
from trims.residency import answers, evicting, loading
from trims.residency.core import Core
from trims.residency.effects import Exit
from trims.residency.events import EvictAsked, ForgetAsked, StopAsked, WaitAsked
from trims.residency.records import PROMISED, Residency, Waiter, Watch
from trims.residency.states import ABSENT, RESIDENT
from trims.units import format_size


def wait_for(core: Core, event: WaitAsked) -> None:
    """Answer when a condition holds."""
    watch = Watch(event, core.clients[event.conn].who)
    place = core.places.get(event.place)
    if place is None:
        core.refuse(watch.ask, loading.no_place(event.place))
    elif event.condition == "free" and event.nbytes > place.budget:
        core.refuse(
            watch.ask, answers.over_budget(core, place, f"{format_size(event.nbytes)} of free memory", event.nbytes)
        )
    else:
        core.wait(watch)


def stop(core: Core, event: StopAsked) -> None:
    """End when nobody is served any more, or now."""
    watch = Watch(event, core.clients[event.conn].who)
    core.stopping = True
    if not event.drain:
        _exit(core, watch)
    else:
        core.log(f"stopping when the last client is done, asked by pid {watch.who.pid}")
        core.wait(watch)


def check(core: Core) -> None:
    """Answer every watch whose time has come, and try again what waits for leases to end."""
    if not core.watches:
        core.touched.clear()
        return
    touched, core.touched = core.touched, set()
    touched.add("")
    for subject in sorted(touched):
        for watch in list(core.watches.get(subject, {}).values()):
            if watch.ask in core.pending:
                _look(core, watch)


def _look(core: Core, watch: Watch) -> None:
    event = watch.event
    if isinstance(event, WaitAsked):
        if watch.acted or _missing(core, event) == "":
            item = {"condition": event.condition, "ref": event.ref, "place": event.place, "held": True}
            core.reply(watch.ask, (item,))
    elif isinstance(event, StopAsked):
        if not serving(core):
            _exit(core, watch)
    elif watch.acted:
        if not watch.left:
            core.reply(watch.ask, watch.items)
    else:
        evicting.attempt(core, watch)


def _missing(core: Core, event: WaitAsked) -> str:
    """What a condition still lacks, "" when it holds."""
    found = core.of_digest(event.digest, event.place)
    leased = [r for r in found if core.leases.count(r.key)]
    if event.condition == "free":
        place = core.places[event.place]
        free = place.budget - place.physical - place.sums[PROMISED] + place.spare
        return "" if free >= event.nbytes else f"{format_size(max(0, free))} of {format_size(event.nbytes)} are free"
    if event.condition == "warm":
        return "" if any(r.state == RESIDENT for r in found) else _state(found)
    if event.condition == "attached":
        return "" if leased else "nobody holds it"
    who = answers.pids(answers.holders(core, found))
    if event.condition == "gone":
        state = _state(found)
        return "" if state == "it is absent" else state + (f", held by {who}" if leased else "")
    return f"it is held by {who}" if who else ""


def _state(found: list[Residency]) -> str:
    states = sorted({r.state for r in found if r.state != ABSENT})
    return f"it is {' and '.join(states) or ABSENT}"


def serving(core: Core) -> list[Residency]:
    """What clients hold or wait for: what a draining stop waits for."""
    return [r for r in core.residencies.values() if core.leases.count(r.key) or r.live_waiters()]


def _exit(core: Core, watch: Watch) -> None:
    """The end: everybody who waits is told. Wishes stay as they are written down, for the next life."""
    core.stopped = True
    core.log(f"the manager ends, asked by pid {watch.who.pid}")
    core.reply(watch.ask)
    for ask, waiting in list(core.pending.items()):
        if isinstance(waiting, Watch) and isinstance(waiting.event, StopAsked):
            core.reply(ask)
        elif isinstance(waiting, Waiter) and waiting.silent:
            core.drop(ask)
        else:
            core.refuse(ask, answers.stopping())
    core.emit(Exit())


def give_up_stop(core: Core) -> None:
    """Go on serving, unless another request to stop stands."""
    others = core.watches.get("", {}).values()
    if not core.stopped and not any(isinstance(w.event, StopAsked) for w in others):
        core.stopping = False
        core.log("not stopping any more")


def expire(core: Core, watch: Watch) -> None:
    """A watch's time has run out."""
    event = watch.event
    if isinstance(event, WaitAsked):
        subject = event.ref or event.place
        what = (
            f"{subject} is not {event.condition} on {event.place}" if event.ref else f"{event.place} is not free enough"
        )
        core.refuse(watch.ask, TimedOut(what, _missing(core, event)))
    elif isinstance(event, StopAsked):
        core.refuse(watch.ask, answers.in_use(core, "the manager goes on", serving(core), "--now does not wait"))
        give_up_stop(core)
    elif isinstance(event, EvictAsked | ForgetAsked):
        evicting.too_late(core, watch, event)
