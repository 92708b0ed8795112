"""From a request to a residency: single-flight loads, who waits for them, and who is answered what.

N requests for one key share one record, one place in the line and one Load. Attaches want the load as long as they
wait; warm and pin leave a wish (`wanted`, a pin) that outlives their connection: when it closes before the answer,
the waiter falls silent and keeps its place in the line until its deadline. A load that nobody waits for or wishes is
abandoned. A request that is refused for want of room leaves nothing; one whose time runs out while the bytes are on
their way leaves its wish.
"""

from __future__ import annotations

from trims.errors import DeviceLost, TimedOut, TrimsError
from trims.residency import answers, ripening, wishes
from trims.residency.core import Core
from trims.residency.effects import Reply
from trims.residency.events import AttachAsked, Loaded, LoadFailed, PinAsked, WarmAsked
from trims.residency.foreseeing import Foresight, foresee
from trims.residency.history import Cause
from trims.residency.leaving import abandon, gone, hold_ended
from trims.residency.records import Place, Residency, Waiter
from trims.residency.states import ABSENT, DOOMED, LOADING, RESIDENT

Want = AttachAsked | WarmAsked | PinAsked


def no_place(name: str) -> TrimsError:
    return DeviceLost(f"there is no place {name}", "this manager does not serve it", "see `trims status`")


def ask(core: Core, event: Want) -> None:
    """Attach, warm or pin."""
    asked = (event.conn, event.request)
    place = core.places.get(event.key.place)
    if place is None or core.stopping:
        core.refuse(asked, no_place(event.key.place) if place is None else answers.stopping())
        return
    residency = core.residencies.get(event.key)
    nbytes = residency.nbytes if residency else event.nbytes
    resident = residency is not None and residency.state == RESIDENT
    if resident and isinstance(event, AttachAsked):
        assert residency is not None
        _attach(core, event, place, residency)
    elif isinstance(event, WarmAsked) and event.dry_run:
        _dry_run(core, event)
    elif isinstance(event, AttachAsked) and event.deadline <= core.now:
        core.counters["misses"] += 1
        what = f"{event.ref} is not on {event.key.place}"
        core.refuse(
            asked, TimedOut(what, "it would have to be loaded, and there is no time", "allow some with timeout")
        )
    elif nbytes > place.budget and not resident:
        core.refuse(asked, answers.over_budget(core, place, event.ref, nbytes))
    elif isinstance(event, PinAsked) and (has := wishes.pinned_bytes(core, place, event.key)) + nbytes > place.pin_cap:
        core.refuse(asked, answers.over_pin_cap(core, place, event.ref, nbytes, has))
    else:
        _enlist(core, event, place, core.record(event.key, event.ref, event.nbytes))


def _attach(core: Core, event: AttachAsked, place: Place, residency: Residency) -> None:
    """It is resident: what nearly every request comes to, so it goes the short way."""
    residency.hits += 1
    core.counters["hits"] += 1
    core.grant(residency, event, core.clients[event.conn].who, "hit")
    place.policy.hit(residency.key, core.now)  # after the lease: what is held has no place in an order to change


def _enlist(core: Core, event: Want, place: Place, residency: Residency) -> None:
    waiter = Waiter((event.conn, event.request), event, core.clients[event.conn].who, core.now)
    if isinstance(event, PinAsked):
        waiter.previous = residency.pins.get(event.owner)
        waiter.pin = wishes.put_pin(core, residency, event)
    elif isinstance(event, WarmAsked):
        wishes.keep_warm(core, residency, event)
    if residency.state == RESIDENT:
        residency.last_use = core.now
        if isinstance(event, WarmAsked):
            core.settle(residency)
        place.policy.hit(residency.key, core.now)
        serve(core, residency, waiter, "already")
        return
    core.counters["misses"] += isinstance(event, AttachAsked)
    waiter.first = not residency.waiters and residency.state != LOADING
    residency.waiters[waiter.ask] = waiter
    core.wait(waiter)
    core.touched.add(residency.key.digest)
    if residency.state == ABSENT:
        place.parked.pop(residency.key, None)
        place.line.setdefault(residency.key, residency)
        core.dirty[place.name] = None
    if isinstance(event, WarmAsked) and not event.wait:
        core.prompt.append(waiter)


def _dry_run(core: Core, event: WarmAsked) -> None:
    asked = (event.conn, event.request)
    try:
        item = foresee(core, Foresight(), event.key, event.ref, event.nbytes, event.evict)
    except TrimsError as error:
        core.refuse(asked, error)
    else:
        core.reply(asked, (item,))


def serve(core: Core, residency: Residency, waiter: Waiter, outcome: str) -> None:
    """Answer one request for what is resident now."""
    event = waiter.event
    if waiter.silent:
        core.drop(waiter.ask)
    elif isinstance(event, AttachAsked):
        core.drop(waiter.ask)
        core.grant(residency, event, waiter.who, "loaded" if waiter.first else "joined")
    else:
        seconds = core.now - waiter.since
        victims = residency.victims if outcome == "warmed" else ()
        core.reply(waiter.ask, (answers.warm_item(residency, outcome, seconds, victims),))


def answer_at_once(core: Core) -> None:
    """Those who do not wait: it is on its way, or there is no room now."""
    waiters, core.prompt = core.prompt, []
    for waiter in waiters:
        if core.pending.get(waiter.ask) is not waiter:
            continue
        residency = core.residencies[waiter.event.key]
        if residency.state == ABSENT:
            expire(core, waiter)
        else:
            ask = waiter.ask
            core.silence(waiter)
            core.emit(Reply(*ask, (answers.warm_item(residency, "loading", 0.0, residency.victims),)))


def loaded(core: Core, event: Loaded) -> None:
    """The bytes are there, and checked."""
    residency = _in_flight(core, event)
    _end(core, residency)
    core.move(residency, "loaded")
    residency.nbytes = event.nbytes
    place = core.places[event.key.place]
    if residency.state == RESIDENT:
        residency.load_seconds = core.now - residency.load_began
        residency.last_use = core.now
        ripening.begin(core, residency)
        core.counters["bytes_loaded"] += event.nbytes
        core.tell(residency, "loaded", residency.load_cause, residency.load_seconds)
        core.log(f"loaded {residency.ref} to {place.name} in {residency.load_seconds:.3f}s", "debug")
    core.settle(residency)
    if place.physical > place.budget:
        place.excused = max(place.excused, place.physical)
    if residency.state == DOOMED:
        core.free(residency)
        return
    for waiter in list(residency.waiters.values()):
        serve(core, residency, waiter, "warmed")


def failed(core: Core, event: LoadFailed) -> None:
    """The load ended without a region: all who waited are told why, and nothing of their wishes is left."""
    residency = _in_flight(core, event)
    _end(core, residency)
    if residency.state == LOADING:
        error = event.error or TrimsError(f"{residency.ref} could not be loaded").to_dict()
        core.counters["load_failures"] += 1
        cause = Cause(str(error.get("message", "")), residency.load_cause.by)
        core.tell(residency, "load failed", cause, core.now - residency.load_began)
        core.log(f"load of {residency.ref} to {event.key.place} failed: {error.get('message', '')}", "warning")
        wishes.refuse_all(core, residency, error)
    core.move(residency, "failed")
    core.settle(residency)
    gone(core, residency)


def _end(core: Core, residency: Residency) -> None:
    """Its load has ended, and with it the hold on what it read from."""
    source = core.end_load(residency)
    if source is not None:
        hold_ended(core, source)


def _in_flight(core: Core, event: Loaded | LoadFailed) -> Residency:
    residency = core.residencies.get(event.key)
    if residency is None or not event.load or residency.load != event.load:
        state = residency.state if residency else ABSENT
        raise core.impossible(event.key, state, f"news of load {event.load}")
    return residency


def expire(core: Core, waiter: Waiter) -> None:
    """A request's time has run out."""
    residency = core.residencies[waiter.event.key]
    error = _too_late(core, residency, waiter)
    if residency.state != LOADING:
        wishes.withdraw(core, residency, waiter)
    if waiter.silent:
        core.drop(waiter.ask)
        if residency.state != LOADING:
            core.log(f"{residency.ref} is not kept on {residency.key.place}: {error}", "warning")
    else:
        core.refuse(waiter.ask, error)
    abandon(core, residency, "nobody waits for it")


def _too_late(core: Core, residency: Residency, waiter: Waiter) -> TrimsError:
    event = waiter.event
    place = core.places[event.key.place]
    if residency.state == ABSENT:
        return answers.no_room(core, place, event.ref, residency.nbytes, but=residency)
    if residency.state == DOOMED and core.leases.count(residency.key):
        what = f"{event.ref} is being evicted from {place.name}"
        return answers.in_use(core, what, [residency], "it can be loaded again when they end")
    return answers.still_loading(event, goes_on=residency.state == LOADING and not isinstance(event, AttachAsked))
