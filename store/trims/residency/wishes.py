"""What outlives the request that asked for it: pins and the warm set. Setting them, and taking them back.

They stand from the moment they are asked for, before the bytes are there. They go when they are dropped or expire,
when the load fails, or when the request that made them is refused.
"""

from __future__ import annotations

from trims.errors import TrimsError
from trims.residency import answers
from trims.residency.core import Core
from trims.residency.events import Key, PinAsked, Restored, WarmAsked
from trims.residency.history import Cause
from trims.residency.records import Pin, Place, Residency, Waiter
from trims.residency.states import RESIDENT
from trims.residency.timers import FOREVER


def pinned_bytes(core: Core, place: Place, but: Key | None = None) -> int:
    """Bytes of all pinned keys of a place, there or still to come."""
    return sum(r.nbytes for r in core.residencies.values() if r.pins and r.key.place == place.name and r.key != but)


def put_pin(core: Core, residency: Residency, event: PinAsked | Restored) -> Pin:
    """Set a pin; one of the same owner is replaced."""
    pin = residency.pins[event.owner] = Pin(event.owner, event.reason, event.expires)
    core.timers.set(("pin", residency.key, event.owner), event.expires)
    core.tell(residency, "pinned", Cause(event.reason, event.owner))
    core.journal()
    core.settle(residency)
    return pin


def take_pin(core: Core, residency: Residency, owner: str, what: str = "unpinned", why: str = "") -> None:
    """Drop one pin, and the requests that still wait to have set it. The model's time to live starts again.

    what, why: for its history.
    """
    del residency.pins[owner]
    core.timers.clear(("pin", residency.key, owner))
    core.tell(residency, what, Cause(why, owner))
    core.journal()
    residency.last_use = core.now
    core.settle(residency)
    error = TrimsError(f"{residency.ref} is not pinned", "its pin was dropped, or expired, while it was loading")
    for waiter in list(residency.waiters.values()):
        if isinstance(waiter.event, PinAsked) and waiter.event.owner == owner:
            _turn_away(core, residency, waiter, error)


def keep_warm(core: Core, residency: Residency, event: WarmAsked) -> None:
    """Add it to the warm set, with the time to live that was asked for."""
    if event.ttl is not None:
        residency.ttl = event.ttl
        core.mortal = core.mortal or event.ttl != FOREVER
    if not residency.wanted:
        residency.wanted = True
        core.journal()


def withdraw(core: Core, residency: Residency, waiter: Waiter) -> None:
    """Take back what a request left behind that is being refused: its pin, its wish to keep the model warm.

    A pin that it replaced stands again; one that has replaced its own stays.
    """
    event = waiter.event
    if waiter.pin is not None and residency.pins.get(waiter.pin.owner) is waiter.pin:
        owner = waiter.pin.owner
        if waiter.previous is not None:
            residency.pins[owner] = waiter.previous
        else:
            del residency.pins[owner]
        core.timers.set(("pin", residency.key, owner), waiter.previous.expires if waiter.previous else FOREVER)
        core.journal()
    elif waiter.pin is not None:
        for other in residency.waiters.values():
            if other.previous is waiter.pin:
                other.previous = waiter.previous
    elif isinstance(event, WarmAsked) and residency.wanted and residency.state != RESIDENT:
        others = [w for w in residency.waiters.values() if isinstance(w.event, WarmAsked) and w is not waiter]
        if not others:
            residency.wanted = False
            core.journal()


def refuse_all(core: Core, residency: Residency, error: TrimsError | dict[str, object]) -> None:
    """Refuse everybody who waits for it, and drop its pins and its place in the warm set."""
    for waiter in list(residency.waiters.values()):
        _turn_away(core, residency, waiter, error)
    for owner in list(residency.pins):
        take_pin(core, residency, owner)
    if residency.wanted:
        residency.wanted = False
        core.journal()


def _turn_away(core: Core, residency: Residency, waiter: Waiter, error: TrimsError | dict[str, object]) -> None:
    if waiter.silent:
        core.drop(waiter.ask)
    else:
        core.refuse(waiter.ask, answers.addressed(error, residency.ref, waiter.event.ref))
