"""What outlives the request that asked for it: pins and the warm set. Setting them, and taking them back.

They stand from the moment they are asked for, before the bytes are there. They go when they are dropped or expire,
when the load fails, or when the request that made them is refused.
"""

from __future__ import annotations

from trims.errors import TrimsError
from trims.residency.core import Core
from trims.residency.events import Key, PinAsked, Restored, WarmAsked
from trims.residency.records import Pin, Place, Residency, Waiter
from trims.residency.states import RESIDENT


def pinned_bytes(core: Core, place: Place, but: Key | None = None) -> int:
    """Bytes of all pinned keys of a place, there or still to come."""
    return sum(r.nbytes for r in core.residencies.values() if r.pins and r.key.place == place.name and r.key != but)


def put_pin(core: Core, residency: Residency, event: PinAsked | Restored) -> Pin | None:
    """Set a pin; returns the one of the same owner that it replaces."""
    previous = residency.pins.get(event.owner)
    residency.pins[event.owner] = Pin(event.owner, event.reason, event.expires)
    core.timers.set(("pin", residency.key, event.owner), event.expires)
    core.stories.tell(residency.key, core.now, f"pinned by {event.owner}")
    core.journal()
    core.settle(residency)
    return previous


def take_pin(core: Core, residency: Residency, owner: str) -> None:
    """Drop one pin. Its time to live starts again; what was only loading for it is not loaded any more."""
    del residency.pins[owner]
    core.timers.clear(("pin", residency.key, owner))
    core.stories.tell(residency.key, core.now, f"unpinned by {owner}")
    core.journal()
    residency.last_use = core.now
    core.settle(residency)


def keep_warm(core: Core, residency: Residency, event: WarmAsked) -> None:
    """Add it to the warm set, with the time to live that was asked for."""
    if event.ttl is not None:
        residency.ttl = event.ttl
    if not residency.wanted:
        residency.wanted = True
        core.journal()


def withdraw(core: Core, residency: Residency, waiter: Waiter) -> None:
    """Take back what a request left behind that is being refused: its pin, its wish to keep the model warm."""
    event = waiter.event
    if isinstance(event, PinAsked) and event.owner in residency.pins:
        if waiter.previous is not None:
            residency.pins[event.owner] = waiter.previous
        else:
            del residency.pins[event.owner]
            core.timers.clear(("pin", residency.key, event.owner))
        core.journal()
    elif isinstance(event, WarmAsked) and residency.wanted and residency.state != RESIDENT:
        others = [w for w in residency.waiters.values() if isinstance(w.event, WarmAsked) and w is not waiter]
        if not others:
            residency.wanted = False
            core.journal()


def refuse_all(core: Core, residency: Residency, error: TrimsError | dict[str, object]) -> None:
    """Refuse everybody who waits for it, and drop its pins and its place in the warm set."""
    for waiter in list(residency.waiters.values()):
        if waiter.silent:
            core.drop(waiter.ask)
        else:
            core.refuse(waiter.ask, error)
    for owner in list(residency.pins):
        take_pin(core, residency, owner)
    if residency.wanted:
        residency.wanted = False
        core.journal()
