"""The brain of the manager: `handle(event, now)` gives the effects to perform. Pure; the only state is in here.

An event changes records by the rules of its subject (loading, evicting, pins, waiting); then the machine comes to rest:
room is given out, those who do not wait are answered, what is due is looked at, and conditions are checked, until
nothing changes any more. So every event may carry the time forward, and Tick is the event that does only that.

Rules, states and the reasons for them are in docs/residency.md. `checks.check` states the invariants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from trims.residency import answers, changing, checks, clients, evicting, loading, pins, ripening, room, waiting
from trims.residency.core import Core
from trims.residency.effects import Effect
from trims.residency.events import (
    Asked,
    AttachAsked,
    Cancelled,
    Closed,
    Event,
    EvictAsked,
    ForgetAsked,
    Freed,
    Key,
    Loaded,
    LoadFailed,
    Lost,
    Opened,
    PinAsked,
    PolicyAsked,
    Released,
    Reserved,
    Restored,
    StopAsked,
    Tick,
    UnpinAsked,
    WaitAsked,
    WarmAsked,
    Who,
)
from trims.residency.foreseeing import Foresight, foresee
from trims.residency.leases import LeaseView
from trims.residency.policies import Policy
from trims.residency.records import HELD, IDLE, LEASED, PINNED, YOUNG, Ask, Residency, Waiter
from trims.residency.states import ABSENT
from trims.residency.views import HistoryView, PinView, PlaceUse, ResidencyView

__all__ = ["HistoryView", "LeaseView", "Machine", "PinView", "PlaceUse", "ResidencyView"]


class Machine:
    """Who is resident where, who holds it, who waits.

    budgets: bytes by place. policy: the order of eviction; every place gets a fresh one. ttl: seconds that an idle
    residency is kept. pin_cap: bytes by place that pins may take, the budget where it is left out.
    min_resident: seconds since it was loaded before which a residency is no victim for somebody's request for room.
    turn: seconds that what waits for room keeps others waiting behind it.
    sources: of a place, the others that its loads may read from instead of the disk, the best first.
    """

    def __init__(
        self,
        budgets: Mapping[str, int],
        policy: Policy,
        ttl: float = float("inf"),
        pin_cap: Mapping[str, int] | None = None,
        min_resident: float = 0.0,
        turn: float = float("inf"),
        sources: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self._core = Core(budgets, policy, ttl, pin_cap or {}, min_resident, turn, sources or {})

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What to do about `event`, in order. Raises InvalidTransition for news of work that was not asked for."""
        core = self._core
        if now > core.now:
            core.now = now
        if core.stopped:
            return clients.turn_away(event)
        if core.min_resident:
            ripening.ripen(core)
        if not isinstance(event, Asked) or clients.admit(core, event):
            _RULES[type(event)](core, event)
        _come_to_rest(core)
        return core.take()

    def next_deadline(self) -> float | None:
        """When the next Tick is due, or None while nothing waits for time to pass."""
        return self._core.timers.next()

    # ---- read-only views

    @property
    def counters(self) -> dict[str, int]:
        return dict(self._core.counters)

    @property
    def policy(self) -> str:
        """The name of the policy that places give up by."""
        return self._core.policy

    @property
    def stopping(self) -> bool:
        """Whether new work is refused because somebody asked the manager to stop."""
        return self._core.stopping

    def residencies(self) -> Iterator[ResidencyView]:
        """All that are not absent."""
        return (self._view(r) for r in list(self._core.residencies.values()) if r.state != ABSENT)

    def residency(self, key: Key) -> ResidencyView | None:
        """That of `key`, or None when it is absent."""
        found = self._core.residencies.get(key)
        return self._view(found) if found is not None and found.state != ABSENT else None

    def nbytes(self, key: Key) -> int:
        """What `key` takes, or would take, in its place; 0 when nobody has asked for it."""
        found = self._core.residencies.get(key)
        return found.nbytes if found is not None else 0

    def leases(self) -> Iterator[LeaseView]:
        return iter(list(self._core.leases))

    def leases_of(self, key: Key) -> list[LeaseView]:
        return list(self._core.leases.of(key))

    def holders(self, digest: str) -> Iterator[Who]:
        """Who holds a lease on any form of a model, in any place, or waits for one."""
        for residency in self._core.of_digest(digest):
            yield from (lease.who for lease in self._core.leases.of(residency.key))
            yield from (waiter.who for waiter in residency.live_waiters())

    def pin_owners(self, digest: str) -> Iterator[str]:
        """Whose pins are on any form of a model, in any place."""
        for residency in self._core.of_digest(digest):
            yield from residency.pins

    def waiters(self, key: Key) -> list[Ask]:
        """(conn, request) of everybody who waits for `key` to be resident and expects an answer."""
        found = self._core.residencies.get(key)
        return [w.ask for w in found.live_waiters()] if found is not None else []

    def pins(self) -> Iterator[PinView]:
        """All pins, also those whose models are not there yet."""
        for r in list(self._core.residencies.values()):
            for pin in list(r.pins.values()):
                yield PinView(r.key, r.ref, pin.owner, pin.reason, pin.expires)

    def warm_set(self) -> Iterator[tuple[Key, str]]:
        """(key, ref) of what was warmed and not given up since."""
        return ((r.key, r.ref) for r in list(self._core.residencies.values()) if r.wanted)

    def queue(self) -> int:
        """How many requests wait for an answer."""
        return sum(len(client.asks) for client in self._core.clients.values())

    def waiting(self, conn: int, uid: int) -> tuple[int, int]:
        """How many requests wait: of a connection, and of a user, those of connections that have ended included."""
        client = self._core.clients.get(conn)
        return len(client.asks) if client is not None else 0, self._core.waiting[uid]

    def use(self, place: str) -> PlaceUse:
        """Bytes of a place. Raises KeyError when there is none such."""
        p = self._core.places[place]
        leased = p.sums[LEASED] + p.sums[HELD]
        idle = p.sums[IDLE] + p.sums[YOUNG]
        return PlaceUse(p.budget, p.physical, p.sums[PINNED], leased, idle, p.spare, p.orphaned)

    def foresee(self, seen: dict[str, Foresight], key: Key, ref: str, nbytes: int, evict: bool) -> dict[str, object]:
        """What a warm request would be answered after those that `seen` has taken in; takes it in. Raises NoRoom."""
        if self._core.stopping:
            raise answers.stopping()
        if key.place not in self._core.places:
            raise loading.no_place(key.place)
        return foresee(self._core, seen.setdefault(key.place, Foresight()), key, ref, nbytes, evict)

    def history(self, digest: str = "") -> list[HistoryView]:
        """What happened lately to a model in all places, or ("") the latest of all models, oldest first. Bounded."""
        return self._core.history.of(digest)

    def invariants(self) -> None:
        """Raise AssertionError if the state is inconsistent. Costs as much as there is state: for tests.

        After Exit there is nothing to hold any more.
        """
        if self._core.stopped:
            return
        checks.check(self._core)

    def _view(self, r: Residency) -> ResidencyView:
        return ResidencyView(
            r.key,
            r.ref,
            r.state,
            r.nbytes,
            self._core.leases.count(r.key),
            len(r.pins),
            r.hits,
            r.since,
            r.last_use,
            self._core.timers.get(("ttl", r.key)),
            r.load_seconds,
            r.load,
        )

    def __repr__(self) -> str:
        core = self._core
        uses = ", ".join(f"{p.name} {p.physical}/{p.budget}" for p in core.places.values())
        return (
            f"<Machine {uses}; {len(core.residencies)} keys, {len(core.clients)} clients, {len(core.pending)} waiting>"
        )


def _come_to_rest(core: Core) -> None:
    while not core.stopped:
        if core.dirty:
            dirty, core.dirty = core.dirty, {}
            for name in dirty:
                room.pump(core, core.places[name])
        if core.prompt:
            loading.answer_at_once(core)
        if core.dirty or _wake(core):
            continue
        waiting.check(core)
        if not (core.dirty or core.touched or core.prompt):
            return


def _wake(core: Core) -> bool:
    """Do what is due. No room is given out in between: nothing is evicted for those whose time is up."""
    due = core.timers.pop_due(core.now)
    if not due:
        return False
    late: list[Ask] = []
    for kind, *what in due:
        if kind == "ttl":
            evicting.expired(core, *what)
        elif kind == "pin":
            pins.expired(core, *what)
        elif kind == "turn":
            core.dirty[what[0]] = None
        else:
            late += what
    for ask in late:
        pending = core.pending.get(ask)
        if isinstance(pending, Waiter):
            loading.expire(core, pending)
        elif pending is not None:
            waiting.expire(core, pending)
    return True


def _tick(core: Core, event: Tick) -> None:
    """Time passes, and that is all."""


_RULES: dict[type[Any], Callable[[Core, Any], None]] = {
    Opened: clients.opened,
    Closed: clients.closed,
    Cancelled: clients.cancelled,
    Released: clients.released,
    Tick: _tick,
    AttachAsked: loading.ask,
    WarmAsked: loading.ask,
    PinAsked: loading.ask,
    Loaded: loading.loaded,
    LoadFailed: loading.failed,
    Freed: evicting.freed,
    Lost: evicting.lost,
    EvictAsked: evicting.evict,
    ForgetAsked: evicting.forget,
    UnpinAsked: pins.unpin,
    Restored: pins.restore,
    Reserved: room.reserve,
    WaitAsked: waiting.wait_for,
    PolicyAsked: changing.change_policy,
    StopAsked: waiting.stop,
}
