"""Many machines behind one router, on paper: each is a `simulator.Node`, the real machine under the virtual clock.

A model's bytes are in one of three tiers of the machine that serves the request: its host memory (the real policy and
budget), its own disk (a cache of whole models, least recently used first to go), or the remote store. What comes from
the remote store goes to memory and onto the disk at once. Transfers to one machine come one after another over its link
(`remote.alone` bytes a second); those to all machines share the store's (`remote.together`). Writing to the disk costs
no time here.

Routing, of each request when it begins:

    random       any machine, by the stream's own generator
    hash         always the same one for a model: that with the highest hash of (model, machine), so that a machine more
                 or less moves only its own models (rendezvous hashing: Thaler and Ravishankar 1998)
    warm-first   the least loaded of those where it is resident or being loaded; when there is none, or each has more
                 than twice as many requests as cores, the less loaded of the two with the highest hashes

Machines are made when they are first asked. Events at one time: transfers of the remote store first, then machines in
their order, then arrivals. A machine's own order is the simulator's.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.errors import UsageError
from trims.residency.effects import Free, Load
from trims.workload import outcomes as rows
from trims.workload.clientele import Clientele, Watch
from trims.workload.cost import Cost
from trims.workload.plan import Stream
from trims.workload.sharing import Sharing
from trims.workload.simulator import Node, Prices, Setup, Table, steady
from trims.workload.summary import Summary, summarise

ROUTING: Final = ("random", "hash", "warm-first")
TIERS: Final = ("host", "joined", "disk", "remote")
HOST, JOINED, DISK, REMOTE = range(4)
MOST: Final = 1000
_CHOICES = 2


@dataclass(frozen=True, slots=True)
class Fleet:
    """machines: how many, 1 to 1,000. node: each of them. disk: bytes of models on the disk of each."""

    machines: int
    routing: str
    node: Setup
    disk: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.machines <= MOST:
            raise UsageError(f"a fleet of {self.machines} machines cannot be simulated", f"1 to {MOST} can")
        if self.routing not in ROUTING:
            raise UsageError(f"no routing {self.routing!r}", "", f"known: {', '.join(ROUTING)}")


@dataclass(frozen=True, slots=True)
class Tier:
    """Requests whose model was there, its bytes, and their latency in seconds; NaN where there are none."""

    name: str
    requests: int
    nbytes: int
    mean: float
    p99: float


@dataclass(frozen=True)
class Served:
    """What came of a stream. node, tier: int[n] of each request. egress: bytes that left the remote store.

    imbalance: requests of the busiest machine over the mean of all, idle ones included. counters: sums over machines.
    """

    outcomes: rows.Outcomes
    summary: Summary
    node: npt.NDArray[np.int32]
    tier: npt.NDArray[np.uint8]
    tiers: tuple[Tier, ...]
    egress: int
    imbalance: float
    machines_used: int
    counters: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the rows."""
        tiers = {t.name: {"requests": t.requests, "nbytes": t.nbytes, "mean": t.mean, "p99": t.p99} for t in self.tiers}
        return {
            "summary": self.summary.to_dict(), "tiers": tiers, "egress": self.egress, "imbalance": self.imbalance,
            "machines_used": self.machines_used, "counters": self.counters,
        }  # fmt: skip


def serve(stream: Stream, fleet: Fleet, cost: Cost, watch: Watch | None = None) -> Served:
    """Serve `stream` by the fleet. Raises UsageError for a setup that means nothing."""
    run = _Run(stream, fleet, cost, watch)
    with steady():
        run.serve()
    made = run.table.outcomes()
    node, tier = np.array(run.node, dtype=np.int32), np.frombuffer(run.tier, dtype=np.uint8).copy()
    tier[made["how"] == rows.HIT], tier[made["how"] == rows.JOINED] = HOST, JOINED
    counts = np.bincount(node, minlength=fleet.machines)
    counters: dict[str, int] = {}
    for each in run.nodes.values():
        for name, value in each.machine.counters.items():
            counters[name] = counters.get(name, 0) + value
    imbalance = float(counts.max() * fleet.machines / len(stream)) if len(stream) else 1.0
    return Served(
        made, summarise(made, stream.models), node, tier, _tiers(made, stream, tier), run.egress, imbalance,
        int(np.count_nonzero(counts)), counters,
    )  # fmt: skip


def _tiers(made: rows.Outcomes, stream: Stream, tier: npt.NDArray[np.uint8]) -> tuple[Tier, ...]:
    nbytes = np.array([model.nbytes for model in stream.models], dtype=np.int64)[stream.model]
    found = []
    for number, name in enumerate(TIERS):
        seconds = rows.latency(made)[tier == number]
        mean, p99 = (float(seconds.mean()), float(np.percentile(seconds, 99))) if len(seconds) else (np.nan, np.nan)
        found.append(Tier(name, len(seconds), int(nbytes[tier == number].sum()), mean, p99))
    return tuple(found)


class Disk:
    """Whole models on a disk of `budget` bytes; the least recently used go first."""

    __slots__ = ("_budget", "_models", "used")

    def __init__(self, budget: int) -> None:
        self._budget, self.used = budget, 0
        self._models: OrderedDict[int, int] = OrderedDict()

    def use(self, model: int) -> bool:
        """Whether it is there; then it was used just now."""
        if model not in self._models:
            return False
        self._models.move_to_end(model)
        return True

    def keep(self, model: int, nbytes: int) -> None:
        """Put it there, if it fits at all."""
        if nbytes > self._budget or self.use(model):
            return
        self._models[model] = nbytes
        self.used += nbytes
        while self.used > self._budget:
            self.used -= self._models.popitem(last=False)[1]


class _Machine(Node):
    """One machine of the fleet. pull: called with (time, machine, model, what) for bytes that it does not have."""

    def __init__(self, run: _Run, number: int, disk: int) -> None:
        super().__init__(run.table, run.prices, run.fleet.node, run.clients.next)
        self.number, self.disk = number, Disk(disk)
        self.line: deque[tuple[int, Load | int]] = deque()
        self._run, self._reads = run, True

    def _fetch(self, now: float, model: int, what: Load | int) -> None:
        run = self._run
        if isinstance(what, Load):
            run.where.setdefault(model, {})[self.number] = None
        here = self.disk.use(model)
        request = what if isinstance(what, int) else self._first(what)
        if request is not None:
            run.tier[request] = DISK if here else REMOTE
        if here:
            super()._fetch(now, model, what)
            return
        self.moved += self._prices.nbytes[model]
        self.line.append((model, what))
        if len(self.line) == 1:
            run.pull(now, self)

    def _first(self, load: Load) -> int | None:
        """The request whose doing a load is."""
        waiters = self.machine.waiters(load.key)
        return waiters[0][1] if waiters else None

    def _give_back(self, free: Free, now: float) -> None:
        model = int(free.key.digest, 16)
        self._run.where[model].pop(self.number, None)
        super()._give_back(free, now)

    def arrived(self, now: float) -> None:
        """The transfer at the head of the line has ended."""
        model, what = self.line.popleft()
        self.disk.keep(model, self._prices.nbytes[model])
        if self.line:
            self._run.pull(now, self)
        self._transferred(now, what)
        self._settle()


class _Run:
    """All machines, the remote store's link, the router and the clients of one stream."""

    def __init__(self, stream: Stream, fleet: Fleet, cost: Cost, watch: Watch | None) -> None:
        self.fleet, self.cost = fleet, cost
        self.table, self.prices = Table(stream), Prices(stream.models, cost, fleet.node.cache)
        self.nodes: dict[int, _Machine] = {}
        self.node, self.tier = [0] * len(stream), bytearray(len(stream))
        self.where: dict[int, dict[int, None]] = {}
        self.egress = 0
        self.clients = Clientele(stream, self.table, self._start, watch)
        self._remote: Sharing[_Machine] = Sharing(lambda transfers, _: cost.remote.speed(transfers))
        self._dues: list[tuple[float, int]] = []
        self._route = self._router(len(stream))

    def serve(self) -> None:
        self.clients.serve(self._due, self._step)

    def pull(self, now: float, machine: _Machine) -> None:
        """Begin the transfer at the head of the machine's line."""
        nbytes = self.prices.nbytes[machine.line[0][0]]
        self.egress += nbytes
        self._remote.add(now, self.cost.remote.seconds(nbytes), machine)

    def _start(self, now: float, request: int, client: int) -> None:
        number = self._route(request)
        node = self.nodes.get(number)
        if node is None:
            node = self.nodes[number] = _Machine(self, number, self.fleet.disk)
        self.node[request] = number
        node.start(now, request, client)
        self._note(node)

    def _note(self, node: _Machine) -> None:
        if node.due < inf:
            heapq.heappush(self._dues, (node.due, node.number))

    def _due(self) -> float:
        dues, nodes = self._dues, self.nodes
        while dues and nodes[dues[0][1]].due != dues[0][0]:
            heapq.heappop(dues)
        return min(self._remote.due, dues[0][0] if dues else inf)

    def _step(self) -> None:
        now = self._due()
        if self._remote.due <= now:
            node = self._remote.pop()
            node.arrived(now)
        else:
            node = self.nodes[heapq.heappop(self._dues)[1]]
            node.step()
        self._note(node)

    # ---- routing

    def _router(self, n: int) -> Callable[[int], int]:
        machines, model = self.fleet.machines, self.table.model
        if self.fleet.routing == "random":
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(self.fleet.seed, spawn_key=(4,))))
            picked: list[int] = (rng.random(n) * machines).astype(np.int64).tolist()
            return picked.__getitem__
        owners: dict[int, list[int]] = {}

        def preferred(asked: int) -> list[int]:
            found = owners.get(asked)
            if found is None:
                found = owners[asked] = rendezvous(asked, machines, _CHOICES)
            return found

        if self.fleet.routing == "hash":
            return lambda request: preferred(model[request])[0]
        return lambda request: self._warmest(model[request], preferred(model[request]))

    def _warmest(self, model: int, preferred: list[int]) -> int:
        nodes, most = self.nodes, 2 * self.cost.cores
        warm = min(self.where.get(model, ()), key=lambda number: (nodes[number].running, number), default=None)
        if warm is not None and nodes[warm].running <= most:
            return warm
        return min(preferred, key=lambda number: nodes[number].running if number in nodes else 0)


def rendezvous(model: int, machines: int, count: int) -> list[int]:
    """The machines with the highest hashes of (model, machine), best first: `count` of them or all.

    The hash is SplitMix64's finaliser (Steele, Lea, Flood 2014) over both numbers.
    """
    with np.errstate(over="ignore"):
        x = np.arange(1, machines + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x ^= _mix(np.uint64(model + 1) * np.uint64(0xD1B54A32D192ED03))
        order = np.argsort(_mix(x), kind="stable")[::-1]
    return [int(number) for number in order[:count]]


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
