"""An honest, tiny executor for the residency machine: it believes nothing and checks every effect against the world.

The world is what a real manager would have: regions, loads in flight, frees under way, spare pages, and clients that
wait for answers. Each `tell` hands the machine an event, performs what comes back, and asserts what must hold of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from trims.residency.effects import Cancel, Effect, Exit, Free, Grant, Load, Refuse, Reply, ShrinkSpare
from trims.residency.events import Asked, Closed, Event, Freed, Key, Loaded, LoadFailed, Reserved, Tick
from trims.residency.machine import Machine


@dataclass
class World:
    """`regions`: bytes of what exists, by key. `loads`: key and bytes by number. `asks`: what waits for an answer."""

    machine: Machine
    budgets: dict[str, int]
    now: float = 0.0
    regions: dict[Key, int] = field(default_factory=dict)
    loads: dict[int, tuple[Key, int]] = field(default_factory=dict)
    sources: dict[int, Key] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    frees: list[Key] = field(default_factory=list)
    reserved: dict[tuple[str, str], int] = field(default_factory=dict)
    shrinks: list[tuple[str, int]] = field(default_factory=list)
    asks: dict[tuple[int, int], Asked] = field(default_factory=dict)
    leases: dict[int, tuple[int, Key]] = field(default_factory=dict)
    answers: list[Grant | Reply | Refuse] = field(default_factory=list)
    exited: bool = False
    broken: bool = False

    def tell(self, event: Event) -> list[Effect]:
        self.broken = True  # until it has gone well
        if isinstance(event, Asked):
            assert (event.conn, event.request) not in self.asks
            self.asks[(event.conn, event.request)] = event
        if isinstance(event, Closed):
            self.leases = {n: held for n, held in self.leases.items() if held[0] != event.conn}
            self.asks = {ask: e for ask, e in self.asks.items() if ask[0] != event.conn}
        effects = self.machine.handle(event, self.now)
        for effect in effects:
            self._perform(effect)
        self.machine.invariants()
        self._check()
        self.broken = False
        return effects

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Load(key, load, _, nbytes, source):
                if source:
                    self.sources[load] = key._replace(place=source)
                    assert source != key.place and self.sources[load] in self.regions, "reads from what is not there"
                    assert self.sources[load] not in self.frees, "reads from what is being freed"
                assert key not in self.regions, "a load of what is there"
                assert key not in [k for k, _ in self.loads.values()], "a second load of one key"
                self.loads[load] = (key, nbytes)
                assert self.used(key.place) <= self.budgets[key.place], "a load beyond the budget"
            case Cancel(key, load):
                assert self.loads[load][0] == key and load not in self.cancelled
                self.cancelled.add(load)
            case Free(key):
                assert key in self.regions and key not in self.frees
                assert key not in [k for _, k in self.leases.values()], "freed under a client"
                assert key not in self.sources.values(), "freed under a load that reads from it"
                self.frees.append(key)
            case Grant(conn, request, lease, key):
                asked = self.asks.pop((conn, request))
                assert asked.key == key  # type: ignore[attr-defined]
                assert key in self.regions and key not in self.frees, "a grant of what is not there"
                assert lease not in self.leases
                self.leases[lease] = (conn, key)
                self.answers.append(effect)
            case Reply(conn, request) | Refuse(conn, request):
                del self.asks[(conn, request)]
                self.answers.append(effect)
            case ShrinkSpare(place, nbytes):
                assert 0 < nbytes <= self.reserved.get((place, "spare"), 0)
                self.shrinks.append((place, nbytes))
            case Exit():
                self.exited = True

    def used(self, place: str) -> int:
        """Bytes that really are in use."""
        regions = sum(n for key, n in self.regions.items() if key.place == place)
        loads = sum(n for key, n in self.loads.values() if key.place == place)
        return regions + loads + sum(n for (at, _), n in self.reserved.items() if at == place)

    def _check(self) -> None:
        for ask, event in self.asks.items():
            assert event.deadline > self.now, f"{ask} was not answered by its deadline"
        for place in self.budgets:
            assert self.machine.use(place).used == self.used(place)
        held = {lease.lease: (lease.conn, lease.key) for lease in self.machine.leases()}
        assert held == self.leases
        if self.exited:
            assert not self.asks, "ended without an answer"

    # ---- what the world does

    def load_done(self, load: int, fail: bool = False) -> list[Effect]:
        key, nbytes = self.loads.pop(load)
        self.sources.pop(load, None)
        self.cancelled.discard(load)
        if fail:
            return self.tell(LoadFailed(key, load, {"code": "damaged", "message": "tensor w is damaged"}))
        self.regions[key] = nbytes
        return self.tell(Loaded(key, load, nbytes))

    def free_done(self, key: Key) -> list[Effect]:
        self.frees.remove(key)
        del self.regions[key]
        return self.tell(Freed(key))

    def reserve(self, place: str, name: str, nbytes: int) -> list[Effect]:
        if nbytes:
            self.reserved[(place, name)] = nbytes
        else:
            self.reserved.pop((place, name), None)
        return self.tell(Reserved(place, name, nbytes, spare=name == "spare"))

    def shrink_done(self) -> list[Effect]:
        place, nbytes = self.shrinks.pop(0)
        return self.reserve(place, "spare", max(0, self.reserved.get((place, "spare"), 0) - nbytes))

    def advance(self, seconds: float) -> None:
        """Let time pass, waking the machine whenever it asked for that, as the server does."""
        until = self.now + seconds
        while (due := self.machine.next_deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.tell(Tick())
            after = self.machine.next_deadline()
            assert after is None or after > self.now, "a tick that leaves something due"
        self.now = until
        self.tell(Tick())

    def settle(self) -> None:
        """Let all work that is under way end well."""
        while self.loads or self.frees or self.shrinks:
            if self.loads:
                self.load_done(min(self.loads))
            elif self.frees:
                self.free_done(self.frees[0])
            else:
                self.shrink_done()
