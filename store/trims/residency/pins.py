"""Pins: holds without a client. Several owners may pin one key; the same owner again replaces its pin.

A pin stands from the moment it is asked for, before the bytes are there, and outlives its connection. It goes when it
is dropped or expires, when its load fails, or when the request that made it is refused. Pins of an earlier life that
find no room stay, and are tried again when room appears.
"""

from __future__ import annotations

from trims.residency import answers
from trims.residency.core import Core
from trims.residency.events import Key, Restored, UnpinAsked
from trims.residency.history import name_of
from trims.residency.leaving import abandon
from trims.residency.states import ABSENT
from trims.residency.wishes import put_pin, take_pin


def unpin(core: Core, event: UnpinAsked) -> None:
    """Drop the pins of a model, or of all, of one owner, or of all."""
    found = core.of_digest(event.digest) if event.digest else list(core.residencies.values())
    items: list[answers.Item] = []
    who = name_of(core.clients[event.conn].who)
    for residency in found:
        for owner in [owner for owner in residency.pins if event.owner in ("", owner)]:
            take_pin(core, residency, owner, why=f"by {who}")
            items.append({"ref": residency.ref, "digest": residency.key.digest, "owner": owner})
        abandon(core, residency, "it was unpinned")
    core.reply((event.conn, event.request), tuple(items))


def expired(core: Core, key: Key, owner: str) -> None:
    """A pin's time has come."""
    residency = core.residencies[key]
    core.counters["pins_expired"] += 1
    core.log(f"the pin of {owner or 'somebody'} on {residency.ref} ({key.place}) has expired")
    take_pin(core, residency, owner, "pin expired")
    abandon(core, residency, "its pin expired")


def restore(core: Core, event: Restored) -> None:
    """Take up what an earlier life of the manager kept."""
    place = core.places.get(event.key.place)
    if place is None:
        core.log(f"{event.ref} is not taken up again: there is no place {event.key.place}", "warning")
        return
    residency = core.record(event.key, event.ref, event.nbytes)
    if event.owner:
        put_pin(core, residency, event)
    else:
        residency.wanted = True
    if residency.state == ABSENT and not residency.waiters:
        place.parked.setdefault(event.key, residency)
    core.dirty[place.name] = None
