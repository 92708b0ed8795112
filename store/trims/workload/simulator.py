"""A stream of requests served on a virtual clock by the real machine, `trims.residency.machine`: what would come of it.

The machine decides as the manager's does; what happens outside it is the cost model: processor time in shares of the
cores, loads in shares of the disk (`sharing`). A request goes

    asked -> fork, connect -> AttachAsked -> [Load -> transfer -> Loaded] -> Grant -> attach = ready -> compute = done
          -> finish -> Released, the client takes the next entry.

A request that the machine refuses (no room within its timeout, larger than the budget) is served natively: its file is
read and opened as if there were no trims, and its row says NATIVE. So no policy gains by refusing.

A `Node` is one such machine; `simulate` drives one with a stream, the fleet many. Clients are few and take the next
entry when they are free; of open arrivals those that find no client free wait in order. Everything is deterministic:
of events at one time, ends of loads come first, then memory that is back, then processor work in the order in which it
came, then timers, then arrivals in the order of the stream. There is no randomness but the stream's seed (and the
`random` policy's own).
"""

from __future__ import annotations

import gc
import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf

import numpy as np

from trims.errors import UsageError
from trims.residency.effects import Effect, Free, Grant, Load, Refuse
from trims.residency.events import AttachAsked, Freed, Key, Loaded, Opened, Released, Tick, Who
from trims.residency.machine import Machine
from trims.residency.policies import make
from trims.workload import outcomes as rows
from trims.workload.clientele import Clientele, Watch
from trims.workload.cost import Cost
from trims.workload.models import ModelSpec
from trims.workload.plan import Stream
from trims.workload.sharing import Sharing

PLACE = "host"
_HOW = {"hit": rows.HIT, "joined": rows.JOINED, "loaded": rows.LOADED}
_ASK, _READY, _DONE, _END = range(4)
_WHO = Who(1, 0, 0)
_SOURCES = {"warm": "page cache", "cold": "disk"}


@dataclass(frozen=True, slots=True)
class Setup:
    """The machine that a stream is served by.

    budget: bytes of its host memory for models; policy: a name; ttl, min_resident: seconds, as the manager's.
    timeout: seconds that a request waits for its model. cache: how loads find the disk, "warm" (page cache) or "cold".
    side: "trims", or "native": every request reads and opens its own file.
    """

    budget: int
    policy: str = "lru"
    ttl: float = inf
    min_resident: float = 0.0
    timeout: float = 60.0
    cache: str = "warm"
    side: str = "trims"


@dataclass(frozen=True)
class Simulated:
    """What came of a stream. outcomes: OUTCOME[n]; counters: the machine's; moved: bytes by where they came from."""

    outcomes: rows.Outcomes
    counters: dict[str, int]
    moved: dict[str, int]

    @property
    def seconds(self) -> float:
        """From the first request asked to the last one done."""
        if not len(self.outcomes):
            return 0.0
        return float(self.outcomes["done"].max() - self.outcomes["asked"].min())


class Table:
    """Rows of requests while they are made: plain lists, one a column, times NaN until they come."""

    def __init__(self, stream: Stream) -> None:
        n = len(stream)
        self.model: list[int] = stream.model.tolist()
        self.client = [0] * n
        self.how = bytearray(n)
        self.asked, self.began, self.ready, self.done = ([0.0] * n for _ in range(4))

    def outcomes(self) -> rows.Outcomes:
        """OUTCOME[n]."""
        made = rows.empty(len(self.model))
        made["request"] = np.arange(len(made))
        made["how"] = np.frombuffer(self.how, dtype=np.uint8)
        for name in ("model", "client", "asked", "began", "ready", "done"):
            made[name] = getattr(self, name)
        return made


class Prices:
    """The seconds of every model of a stream, worked out once. timed: whether requests arrive at times of their own."""

    def __init__(self, models: Sequence[ModelSpec], cost: Cost, cache: str, timed: bool = False) -> None:
        link = cost.disk(cache)
        self.cost, self.cache = cost, cache
        self.nbytes = [model.nbytes for model in models]
        self.keys = [Key(f"{i:064x}", "raw", PLACE) for i in range(len(models))]
        self.attach = [cost.attach_seconds(model) for model in models]
        self.compute = [cost.compute_seconds(model) for model in models]
        self.load = [link.seconds(model.nbytes) for model in models]
        self.native = [cost.native(model.nbytes) for model in models]
        self.native_compute = [cost.native_compute(model.nbytes) for model in models]
        begin = cost.fork + (cost.dispatch if timed else 0.0)
        self.start, self.finish = begin + cost.connect, cost.finish
        self.forked = begin / self.start if self.start else 0.0


class Node:
    """One machine with its cores and its disk. `due`: when its next event is, inf while nothing goes on.

    free: called with (time, client) when a client has finished its request. running: requests under way.
    moved: bytes brought to memory, by loads and natively.
    """

    def __init__(self, table: Table, prices: Prices, setup: Setup, free: Callable[[float, int], None]) -> None:
        if setup.cache not in ("warm", "cold") or setup.side not in ("trims", "native"):
            raise UsageError(f"cannot simulate {setup.side} with a {setup.cache} page cache")
        self._table, self._prices, self._setup, self._free = table, prices, setup, free
        self.machine = Machine({PLACE: setup.budget}, make(setup.policy), setup.ttl, min_resident=setup.min_resident)
        self._cores: Sharing[int] = Sharing(prices.cost.speed)
        self._disk: Sharing[Load | int] = Sharing(
            lambda transfers, functions: prices.cost.load_speed(prices.cache, transfers, functions)
        )
        self._leaving: list[tuple[float, int, Key]] = []
        self._leases: dict[int, tuple[int, int]] = {}
        self._opened: set[int] = set()
        self._reads = setup.cache == "cold"  # whether a request alone has to fetch its bytes, too
        # The machine is asked for its timers only when it has others than the deadlines of those who wait.
        self._timed = setup.ttl < inf or setup.min_resident > 0
        self._waits: dict[int, float] = {}
        self._stages = (self._ask, self._ready, self._done, self._end)
        self._number = 0
        self.moved = self.running = 0
        self.due = inf

    # ---- what goes on

    def start(self, now: float, request: int, client: int) -> None:
        """`client` takes `request` now."""
        if client not in self._opened:
            self._opened.add(client)
            self.machine.handle(Opened(client, _WHO), now)
        table = self._table
        table.client[request], table.began[request] = client, now
        self.running += 1
        self._cores.add(now, self._prices.start, request << 2)
        self._settle(now)

    def step(self) -> None:
        """The next event, at `due`."""
        now = self.due
        if self._disk.due <= now:
            self._transferred(now, self._disk.pop())
        elif self._leaving and self._leaving[0][0] <= now:
            self._perform(self.machine.handle(Freed(heapq.heappop(self._leaving)[2]), now), now)
        elif self._cores.due <= now:
            job = self._cores.pop()
            self._stages[job & 3](now, job >> 2)
        else:
            self._perform(self.machine.handle(Tick(), now), now)
        self._settle(now)

    def _settle(self, now: float) -> None:
        if len(self._disk):
            self._disk.surround(now, len(self._cores))
        due = self._cores.due
        if self._disk.due < due:
            due = self._disk.due
        if self._leaving and self._leaving[0][0] < due:
            due = self._leaving[0][0]
        if self._timed:
            timer = self.machine.next_deadline()
            if timer is not None and timer < due and self.running:
                due = timer
        elif self._waits:  # all wait equally long: the first in the table is the first to give up
            due = min(due, next(iter(self._waits.values())))
        self.due = due

    def _ask(self, now: float, request: int) -> None:
        table, prices, setup = self._table, self._prices, self._setup
        began = table.began[request]
        table.began[request] = began + (now - began) * prices.forked
        if setup.side == "native":
            self._alone(now, request)
            return
        model = table.model[request]
        asked = AttachAsked(
            table.client[request], request, now + setup.timeout, prices.keys[model], "", prices.nbytes[model]
        )
        self._waits[request] = asked.deadline
        self._perform(self.machine.handle(asked, now), now)

    def _ready(self, now: float, request: int) -> None:
        table, prices = self._table, self._prices
        table.ready[request] = now
        model = table.model[request]
        works = prices.native_compute if table.how[request] == rows.NATIVE else prices.compute
        self._cores.add(now, works[model], request << 2 | _DONE)

    def _done(self, now: float, request: int) -> None:
        self._table.done[request] = now
        self._cores.add(now, self._prices.finish, request << 2 | _END)

    def _end(self, now: float, request: int) -> None:
        lease = self._leases.pop(request, None)
        if lease is not None:
            self._perform(self.machine.handle(Released(*lease), now), now)
        self.running -= 1
        self._free(now, self._table.client[request])

    # ---- what the machine wants

    def _perform(self, effects: list[Effect], now: float) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is Grant:
                self._granted(effect, now)  # type: ignore[arg-type]
            elif kind is Load:
                self._load(effect, now)  # type: ignore[arg-type]
            elif kind is Free:
                self._give_back(effect, now)  # type: ignore[arg-type]
            elif kind is Refuse:
                del self._waits[effect.request]  # type: ignore[union-attr]
                self._alone(now, effect.request)  # type: ignore[union-attr]

    def _granted(self, grant: Grant, now: float) -> None:
        request, table = grant.request, self._table
        del self._waits[request]
        table.how[request] = _HOW[grant.how]
        self._leases[request] = (grant.conn, grant.lease)
        self._cores.add(now, self._prices.attach[table.model[request]], request << 2 | _READY)

    def _load(self, load: Load, now: float) -> None:
        self._fetch(now, int(load.key.digest, 16), load)

    def _give_back(self, free: Free, now: float) -> None:
        nbytes = self._prices.nbytes[int(free.key.digest, 16)]
        self._number += 1
        heapq.heappush(self._leaving, (now + self._prices.cost.free(nbytes), self._number, free.key))

    def _alone(self, now: float, request: int) -> None:
        """Serve it natively: read its file, open it."""
        model = self._table.model[request]
        self._table.how[request] = rows.NATIVE
        if self._reads:
            self._fetch(now, model, request)
        else:
            self.moved += self._prices.nbytes[model]
            self._cores.add(now, self._prices.native[model], request << 2 | _READY)

    def _fetch(self, now: float, model: int, what: Load | int) -> None:
        """Begin to bring a model's bytes: for a load, or for one request alone."""
        self.moved += self._prices.nbytes[model]
        self._disk.add(now, self._prices.load[model], what)
        self._cores.surround(now, len(self._disk))

    def _transferred(self, now: float, what: Load | int) -> None:
        """The bytes are there."""
        self._cores.surround(now, len(self._disk))
        if isinstance(what, int):
            self._cores.add(now, self._prices.native[self._table.model[what]], what << 2 | _READY)
        else:
            self._perform(self.machine.handle(Loaded(what.key, what.load, what.nbytes), now), now)


def simulate(stream: Stream, setup: Setup, cost: Cost, watch: Watch | None = None) -> Simulated:
    """Serve `stream` on one machine.

    Raises UsageError for an unknown policy, or a setup that means nothing.
    """
    table = Table(stream)
    clients = Clientele(stream, table, lambda now, request, client: node.start(now, request, client), watch)
    node = Node(table, Prices(stream.models, cost, setup.cache, stream.at is not None), setup, clients.next)
    with steady():
        clients.serve(lambda: node.due, node.step)
    return Simulated(table.outcomes(), node.machine.counters, {_SOURCES[setup.cache]: node.moved})


@contextmanager
def steady() -> Iterator[None]:
    """Without the collector of cycles: a run makes none, and each walk over a million live rows costs a second."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def unlimited(stream: Stream) -> int:
    """A budget with room for every model of the stream."""
    return max(1, sum(model.nbytes for model in stream.models))


def alone(models: Sequence[ModelSpec], cost: Cost, cache: str) -> tuple[dict[str, float], dict[str, float]]:
    """name -> seconds from asking to the first result, and until the weights are usable, natively and alone."""
    link = cost.disk(cache)
    done: dict[str, float] = {}
    ready: dict[str, float] = {}
    for model in models:
        read = link.seconds(model.nbytes) if cache == "cold" else 0.0
        ready[model.name] = cost.fork + cost.connect + read + cost.native(model.nbytes)
        done[model.name] = ready[model.name] + cost.native_compute(model.nbytes)
    return done, ready
