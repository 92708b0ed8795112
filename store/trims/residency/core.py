"""The state that all rules share, and the few ways to change it.

Rules change a record, then call `settle`, which brings everything derived from it up to date at once: the place's
sums, the policy's order, the timer of its time to live, the index. So no rule can forget one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from trims.errors import TrimsError
from trims.residency.effects import Free, Grant, Load, Refuse, Reply
from trims.residency.events import AttachAsked, Key, Who
from trims.residency.history import Cause, History, name_of
from trims.residency.leases import Leases
from trims.residency.outbox import Outbox
from trims.residency.policies import Policy
from trims.residency.records import (
    COMING,
    GONE,
    HELD,
    IDLE,
    KNOWN,
    LEASED,
    MOVING,
    PINNED,
    PROMISED,
    UNHELD,
    YOUNG,
    Ask,
    Client,
    Place,
    Residency,
    Waiter,
    Watch,
)
from trims.residency.states import ABSENT, DOOMED, LOADING, RESIDENT, InvalidTransition, next_state
from trims.residency.timers import FOREVER, Timers

COUNTERS = (
    "attaches", "hits", "misses", "releases", "loads", "load_failures", "loads_cancelled", "bytes_loaded",
    "evictions", "bytes_evicted", "expired", "pins_expired", "refusals",
)  # fmt: skip


class Core:
    """Everything the machine knows. `now` is the time of the event being handled."""

    def __init__(
        self,
        budgets: Mapping[str, int],
        policy: Policy,
        ttl: float,
        pin_cap: Mapping[str, int],
        min_resident: float,
        turn: float,
        sources: Mapping[str, tuple[str, ...]],
    ) -> None:
        self.places = {
            name: Place(name, budget, pin_cap.get(name, budget), policy.fresh()) for name, budget in budgets.items()
        }
        self.policy = policy.name
        self.ttl = ttl
        self.min_resident, self.turn = min_resident, turn
        self.sources = sources
        self.mortal = ttl != FOREVER  # whether anything may ever have had a time to live
        self.now = 0.0
        self.residencies: dict[Key, Residency] = {}
        self.by_digest: dict[str, dict[Key, None]] = {}
        self.clients: dict[int, Client] = {}
        self.pending: dict[Ask, Waiter | Watch] = {}
        self.waiting: Counter[int] = Counter()  # how many of them each user has
        self.watches: dict[str, dict[Ask, Watch]] = {}
        self.prompt: list[Waiter] = []
        self.leases = Leases()
        self.timers = Timers()
        self.history = History()
        self.counters = dict.fromkeys(COUNTERS, 0)
        self.dirty: dict[str, None] = {}
        self.touched: set[str] = set()
        self.stopping = self.stopped = False
        self.loads = self.silenced = 0
        self.out = Outbox()
        self.emit, self.log = self.out.emit, self.out.log
        self.journal, self.publish, self.take = self.out.journal, self.out.publish, self.out.take

    # ---- requests

    def wait(self, waiting: Waiter | Watch) -> None:
        """Remember a request until it is answered or its deadline comes."""
        conn, request = ask = waiting.ask
        self.pending[ask] = waiting
        self.waiting[waiting.who.uid] += 1
        self.clients[conn].asks[request] = None
        self.timers.set(("ask", ask), waiting.event.deadline)
        if isinstance(waiting, Watch):
            self.watches.setdefault(waiting.subject, {})[ask] = waiting
            self.touched.add(waiting.subject)

    def drop(self, ask: Ask) -> None:
        """Forget a request: it is answered, or nobody waits for the answer."""
        waiting = self.pending.pop(ask, None)
        if waiting is None:
            return
        self.timers.clear(("ask", ask))
        self.waiting[waiting.who.uid] -= 1
        if not self.waiting[waiting.who.uid]:
            del self.waiting[waiting.who.uid]
        if ask[0] in self.clients:
            self.clients[ask[0]].asks.pop(ask[1], None)
        if isinstance(waiting, Watch):
            group = self.watches[waiting.subject]
            del group[ask]
            if not group:
                del self.watches[waiting.subject]
            return
        residency = self.residencies.get(waiting.event.key)
        if residency is not None:
            residency.waiters.pop(ask, None)
        self.touched.add(waiting.event.key.digest)

    def silence(self, waiter: Waiter) -> None:
        """Nobody waits for the answer any more, but what was asked for stands until its deadline."""
        self.drop(waiter.ask)
        self.silenced += 1
        waiter.silent, waiter.ask = True, (-1, self.silenced)
        self.pending[waiter.ask] = waiter
        self.waiting[waiter.who.uid] += 1
        self.residencies[waiter.event.key].waiters[waiter.ask] = waiter
        self.timers.set(("ask", waiter.ask), waiter.event.deadline)

    def reply(self, ask: Ask, items: tuple[dict[str, object], ...] = ()) -> None:
        self.drop(ask)
        self.emit(Reply(*ask, items))

    def refuse(self, ask: Ask, error: TrimsError | dict[str, object]) -> None:
        self.drop(ask)
        self.counters["refusals"] += 1
        self.emit(Refuse(*ask, error if isinstance(error, dict) else error.to_dict()))

    def grant(self, residency: Residency, event: AttachAsked, who: Who, how: str) -> None:
        """Answer an attach, which does not wait any more, with a lease. how: as Grant says."""
        lease = self.leases.grant(event.conn, residency.key, who, self.now)
        residency.last_use = self.now
        self.counters["attaches"] += 1
        self.settle(residency)
        self.emit(Grant(event.conn, event.request, lease.lease, residency.key, how))

    # ---- residencies

    def record(self, key: Key, ref: str, nbytes: int) -> Residency:
        """The record of `key`, made if there is none."""
        residency = self.residencies.get(key)
        if residency is None:
            residency = self.residencies[key] = Residency(key, ref, nbytes, self.ttl, since=self.now)
            self.by_digest.setdefault(key.digest, {})[key] = None
        return residency

    def forget(self, residency: Residency) -> None:
        """Drop the record of an absent key that nobody wants."""
        key = residency.key
        if self.residencies.pop(key, None) is None:
            return
        self.by_digest[key.digest].pop(key, None)
        if not self.by_digest[key.digest]:
            del self.by_digest[key.digest]
        self.touched.add(key.digest)

    def of_digest(self, digest: str, place: str = "") -> list[Residency]:
        """The records of a model, in one place or in all."""
        keys = self.by_digest.get(digest, ())
        return [self.residencies[key] for key in keys if place in ("", key.place)]

    def move(self, residency: Residency, what: str) -> None:
        """One step of its life; the caller settles it afterwards. Raises InvalidTransition."""
        state = next_state(residency.state, what)
        if state is None:
            raise self.impossible(residency.key, residency.state, what)
        if state != residency.state:
            residency.since = self.now
        residency.state = state

    def impossible(self, key: Key, state: str, what: str) -> InvalidTransition:
        """The exception to raise when the machine is told what cannot be, with the model's history."""
        lines = [f"{h.time:.3f} {h.what} ({h.variant}, {h.place}): {h.why}" for h in self.history.of(key.digest)]
        return InvalidTransition(f"{what!r} while {state} is impossible for {key}: {'; '.join(lines) or 'no history'}")

    def tell(self, residency: Residency, what: str, cause: Cause, seconds: float = 0.0) -> None:
        """Write a line of its history."""
        self.history.tell(residency.key, residency.ref, self.now, what, cause, residency.nbytes, seconds)

    def settle(self, residency: Residency) -> None:
        """Bring all that is derived from the record up to date."""
        place = self.places[residency.key.place]
        before, kind = residency.kind, self._kind(residency)
        if kind == GONE == before:
            self.touched.add(residency.key.digest)
            return
        self._count(place, residency, before, kind)
        if kind != before:
            self._order(place, residency, before, kind)
        if residency.timed or (residency.ttl != FOREVER and kind in UNHELD):
            residency.timed = kind in UNHELD and residency.ttl != FOREVER
            self.timers.set(("ttl", residency.key), residency.last_use + residency.ttl if residency.timed else FOREVER)
        if kind not in KNOWN or before not in KNOWN or place.busy:  # else there is nobody to give room to
            self.dirty[place.name] = None
        self.touched.add(residency.key.digest)
        self.publish(residency.key)

    def _count(self, place: Place, residency: Residency, before: str, kind: str) -> None:
        if before != GONE:
            place.sums[before] -= residency.counted
            if before != PROMISED:
                place.existing -= residency.counted
        residency.kind, residency.counted = kind, residency.nbytes if kind != GONE else 0
        if kind != GONE:
            place.sums[kind] += residency.nbytes
            if kind != PROMISED:
                place.existing += residency.nbytes
        if GONE in (before, kind):
            place.largest = None
        if place.excused:
            place.excused = min(place.excused, place.physical)

    def _kind(self, residency: Residency) -> str:
        state = residency.state
        if state == ABSENT:
            return GONE
        if state == LOADING:
            return MOVING if residency.load else PROMISED
        if state == DOOMED:
            return HELD if self.held(residency) else COMING
        if residency.pins:
            return PINNED
        if self.held(residency):
            return LEASED
        return IDLE if residency.ripe else YOUNG

    def _order(self, place: Place, residency: Residency, before: str, kind: str) -> None:
        known, knows = before in KNOWN, kind in KNOWN
        if knows and not known:
            place.policy.insert(residency.key, residency.nbytes, residency.load_seconds, self.now)
            if kind not in UNHELD:
                place.policy.hold(residency.key)
        elif known and not knows:
            place.policy.remove(residency.key)
        elif knows and (before in UNHELD) != (kind in UNHELD):
            if kind in UNHELD:
                place.policy.release(residency.key, self.now)
            else:
                place.policy.hold(residency.key)

    def order(self, place: Place, young: bool = False) -> Iterator[tuple[Key, int]]:
        """What may go from `place`, best to lose first, with its bytes; `young` ones only for those who insist."""
        for key in place.policy.victims(self.now):
            residency = self.residencies[key]
            if young or residency.ripe:
                yield key, residency.nbytes

    def held(self, residency: Residency) -> int:
        """How many leases, and loads that read from it, keep it where it is."""
        return self.leases.count(residency.key) + residency.readers

    # ---- the two effects that change what exists

    def begin_load(self, residency: Residency) -> None:
        """Send the Load out. The caller has made sure of the bytes."""
        place = self.places[residency.key.place]
        if place.physical + residency.nbytes > place.budget:
            raise self.impossible(residency.key, residency.state, "loading beyond the budget")
        self.loads += 1
        residency.load, residency.load_began = self.loads, self.now
        self.counters["loads"] += 1
        if residency.waiters and not any(waiter.first for waiter in residency.waiters.values()):
            next(iter(residency.waiters.values())).first = True  # the one whose doing it was has gone
        residency.load_cause = _cause_of_load(residency)
        self.settle(residency)
        source = self._find_source(residency.key)
        if source is not None:
            residency.source = source.key
            source.readers += 1
            self.settle(source)
        where = source.key.place if source is not None else ""
        self.emit(Load(residency.key, self.loads, residency.ref, residency.nbytes, where))

    def _find_source(self, key: Key) -> Residency | None:
        """The same form in the first of the places that are sooner read than the disk."""
        for place in self.sources.get(key.place, ()):
            found = self.residencies.get(key._replace(place=place))
            if found is not None and found.state == RESIDENT:
                return found
        return None

    def end_load(self, residency: Residency) -> Residency | None:
        """The load in flight has ended, well or not. What it read from is returned: it may have lost its last hold."""
        residency.load = 0
        if residency.source is None:
            return None
        source, residency.source = self.residencies[residency.source], None
        source.readers -= 1
        self.settle(source)
        return source

    def free(self, residency: Residency) -> None:
        """Send the Free of a doomed one out that nobody holds."""
        if residency.state != DOOMED or residency.load or residency.freeing or self.held(residency):
            raise self.impossible(residency.key, residency.state, "freeing what is held")
        residency.freeing = True
        self.emit(Free(residency.key))


def _cause_of_load(residency: Residency) -> Cause:
    for waiter in residency.waiters.values():
        if waiter.first or waiter.silent:
            return Cause(type(waiter.event).__name__.removesuffix("Asked").lower(), name_of(waiter.who))
    return Cause("kept from before")
