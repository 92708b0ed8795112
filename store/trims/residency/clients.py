"""Connections: what each has asked for and holds, and what ends with it."""

from __future__ import annotations

from trims.errors import ProtocolError
from trims.residency import answers, evicting, waiting
from trims.residency.core import Core
from trims.residency.effects import Effect, Refuse
from trims.residency.events import Asked, AttachAsked, Cancelled, Closed, Event, Opened, Released, StopAsked
from trims.residency.leaving import abandon
from trims.residency.records import Ask, Client, Waiter
from trims.residency.wishes import withdraw


def admit(core: Core, event: Asked) -> bool:
    """Whether a request is looked at: its client is there, and has no other one of the same id waiting."""
    client = core.clients.get(event.conn)
    if client is None:
        return False
    if event.request in client.asks:
        error = ProtocolError(f"request {event.request} is already waiting", "", "give every request its own id")
        core.emit(Refuse(event.conn, event.request, error.to_dict()))
        return False
    return True


def turn_away(event: Event) -> list[Effect]:
    """After the end: requests are refused, and nothing else matters."""
    if isinstance(event, Asked):
        return [Refuse(event.conn, event.request, answers.stopping().to_dict())]
    return []


def opened(core: Core, event: Opened) -> None:
    core.clients[event.conn] = Client(event.who)


def closed(core: Core, event: Closed) -> None:
    """All its leases and requests end; what it asked to be warm or pinned stands."""
    client = core.clients.pop(event.conn, None)
    if client is None:
        return
    for lease in core.leases.close(event.conn):
        evicting.lease_ended(core, lease)
    for request in client.asks:
        waiting_for = core.pending[(event.conn, request)]
        if isinstance(waiting_for, Waiter) and not isinstance(waiting_for.event, AttachAsked):
            core.silence(waiting_for)
        else:
            _dismiss(core, (event.conn, request))


def cancelled(core: Core, event: Cancelled) -> None:
    _dismiss(core, (event.conn, event.request))


def _dismiss(core: Core, ask: Ask) -> None:
    """Nobody wants the answer to a request, nor what it asked for."""
    pending = core.pending.get(ask)
    if pending is None:
        return
    if isinstance(pending, Waiter):
        residency = core.residencies[pending.event.key]
        withdraw(core, residency, pending)
        core.drop(ask)
        core.settle(residency)
        abandon(core, residency, "nobody waits for it")
        return
    core.drop(ask)
    if isinstance(pending.event, StopAsked):
        waiting.give_up_stop(core)


def released(core: Core, event: Released) -> None:
    lease = core.leases.release(event.conn, event.lease)
    if lease is not None:
        evicting.lease_ended(core, lease)
