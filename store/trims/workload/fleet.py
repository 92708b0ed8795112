"""Many machines behind one router, on paper: each is a `simulator.Node`, the real machine under the virtual clock.

A model's bytes are in one of three places of the machine that serves the request: its host memory (the real policy and
budget), its own disk (a cache of whole models, least recently used first to go), or the remote store. What comes from
the remote store goes to memory and onto the disk at once. Transfers to one machine come one after another over its link
(`remote.alone` bytes a second); those to all machines share the store's (`remote.together`). Writing to the disk costs
no time here. A request is sent to its machine when it begins; `routing` says to which.

Machines are made when they are first asked, so that idle ones cost nothing. Of events at one time, transfers of the
remote store come first, then machines in their order, then arrivals; a machine's own order is the simulator's.
One machine whose disk holds everything does exactly what `simulate` does.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from dataclasses import dataclass
from math import inf
from typing import Final

import numpy as np

from trims.errors import UsageError
from trims.residency.effects import Free, Load
from trims.workload import outcomes as rows
from trims.workload import routing as routes
from trims.workload.clientele import Clientele, Watch
from trims.workload.cost import Cost
from trims.workload.plan import Stream
from trims.workload.served import DISK, HOST, JOINED, REMOTE, TIERS, Served, Tier, tiers
from trims.workload.sharing import Sharing
from trims.workload.simulator import Node, Prices, Setup, Table, steady
from trims.workload.summary import summarise

MOST: Final = 1000
__all__ = ["DISK", "HOST", "JOINED", "MOST", "REMOTE", "TIERS", "Disk", "Fleet", "Served", "Tier", "serve"]


@dataclass(frozen=True, slots=True)
class Fleet:
    """machines: how many, 1 to 1,000. node: each of them. disk: bytes of models on the disk of each.

    filled: whether each disk holds at the start what fits of the models, in their order (most popular first where a
    plan made them); else all are empty. Raises UsageError for values out of range.
    """

    machines: int
    routing: routes.Routing
    node: Setup
    disk: int
    filled: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.machines <= MOST:
            raise UsageError(f"a fleet of {self.machines} machines cannot be simulated", f"1 to {MOST} can")
        if self.disk < 0:
            raise UsageError("a disk of less than nothing cannot be simulated", f"{self.disk} bytes")


def serve(stream: Stream, fleet: Fleet, cost: Cost, watch: Watch | None = None) -> Served:
    """Serve `stream` by the fleet. Raises UsageError for a setup that means nothing."""
    run = _Run(stream, fleet, cost, watch)
    with steady():
        run.serve()
    made = run.table.outcomes()
    summary = summarise(made, stream.models)
    made["client"] = run.node
    tier = np.frombuffer(run.tier, dtype=np.uint8).copy()
    tier[made["how"] == rows.HIT], tier[made["how"] == rows.JOINED] = HOST, JOINED
    busy = np.zeros(fleet.machines)
    counters: dict[str, int] = {}
    for number, machine in run.machines.items():
        busy[number] = machine.busy
        for name, value in machine.machine.counters.items():
            counters[name] = counters.get(name, 0) + value
    return Served(
        made, summary, tier, tiers(made, stream, tier), run.egress, np.array(run.peak, dtype=np.int32),
        np.bincount(made["client"], minlength=fleet.machines), busy, counters,
    )  # fmt: skip


class Disk:
    """Whole models on a disk of `budget` bytes; the least recently used go first."""

    __slots__ = ("_budget", "_models", "used")

    def __init__(self, budget: int) -> None:
        self._budget, self.used = budget, 0
        self._models: OrderedDict[int, int] = OrderedDict()

    def __contains__(self, model: int) -> bool:
        return model in self._models

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

    def fill(self, nbytes: list[int]) -> None:
        """Put there what fits of the models, the first as if used last."""
        for model, size in enumerate(nbytes):
            if self.used + size <= self._budget:
                self._models[model] = size
                self._models.move_to_end(model, last=False)
                self.used += size


class _Machine(Node):
    """One machine of the fleet. busy: seconds in which requests were under way. line: what waits for its link."""

    def __init__(self, run: _Run, number: int) -> None:
        super().__init__(run.table, run.prices, run.fleet.node, run.free)
        self.number, self.disk = number, Disk(run.fleet.disk)
        if run.fleet.filled:
            self.disk.fill(run.prices.nbytes)
        self.line: deque[tuple[int, Load | int]] = deque()
        self.busy = self.since = 0.0
        self._run = run

    def _fetch(self, now: float, model: int, what: Load | int) -> None:
        run = self._run
        if isinstance(what, Load):
            run.appears(model, self.number)
            waiters = self.machine.waiters(what.key)
            request = waiters[0][1] if waiters else None  # the one whose doing the load is
        else:
            request = what
        here = self.disk.use(model)
        if request is not None:
            run.tier[request] = DISK if here else REMOTE
        if here:
            super()._fetch(now, model, what)
            return
        self.moved += self._prices.nbytes[model]
        self.line.append((model, what))
        if len(self.line) == 1:
            run.pull(now, self)

    def _alone(self, now: float, request: int) -> None:
        """Natively too, the file has to be on this machine. Its memory did not get the model."""
        self._run.where[self._table.model[request]].pop(self.number, None)
        if not self.disk.use(self._table.model[request]):
            self._table.how[request] = rows.NATIVE
            self._fetch(now, self._table.model[request], request)
        else:
            self._run.tier[request] = DISK
            super()._alone(now, request)

    def _give_back(self, free: Free, now: float) -> None:
        self._run.where[int(free.key.digest, 16)].pop(self.number, None)
        super()._give_back(free, now)

    def arrived(self, now: float) -> None:
        """The transfer at the head of the line has ended."""
        model, what = self.line.popleft()
        self.disk.keep(model, self._prices.nbytes[model])
        if self.line:
            self._run.pull(now, self)
        self._transferred(now, what)
        self._settle(now)


class _Run:
    """All machines, the remote store's link, the router and the clients of one stream."""

    def __init__(self, stream: Stream, fleet: Fleet, cost: Cost, watch: Watch | None) -> None:
        self.fleet, self.cost = fleet, cost
        self.table = Table(stream)
        self.prices = Prices(stream.models, cost, fleet.node.cache, stream.at is not None)
        self.machines: dict[int, _Machine] = {}
        self.node, self.tier = [0] * len(stream), bytearray(len(stream))
        self.where: dict[int, dict[int, None]] = {}
        self.peak = [0] * len(stream.models)
        self.egress = 0
        self._running = [0] * fleet.machines
        self._on = [0] * stream.clients
        self.clients = Clientele(stream, self.table, self._start, watch)
        self._remote: Sharing[_Machine] = Sharing(lambda transfers, _: cost.remote.speed(transfers))
        self._dues: list[tuple[float, int]] = []
        self._first = Disk(fleet.disk)
        if fleet.filled:
            self._first.fill(self.prices.nbytes)
        prices = self.prices
        compute = [
            prices.start + a + c + prices.cost.finish for a, c in zip(prices.attach, prices.compute, strict=True)
        ]
        view = routes.View(self.table.model, self._running, self.where, compute, self._load, cost.slower)
        self._route = routes.router(fleet.routing, fleet.machines, view, fleet.seed)

    def serve(self) -> None:
        self.clients.serve(self._due, self._step)

    def pull(self, now: float, machine: _Machine) -> None:
        """Begin the transfer at the head of the machine's line."""
        nbytes = self.prices.nbytes[machine.line[0][0]]
        self.egress += nbytes
        self._remote.add(now, self.cost.remote.seconds(nbytes), machine)

    def appears(self, model: int, number: int) -> None:
        """A model is on its way to a machine's memory, from the moment on that the first request for it goes there."""
        there = self.where.setdefault(model, {})
        there[number] = None
        if len(there) > self.peak[model]:
            self.peak[model] = len(there)

    def _load(self, model: int, number: int) -> float:
        """Seconds that bringing a model to a machine costs as things are."""
        machine = self.machines.get(number)
        if model in (self._first if machine is None else machine.disk):
            return self.prices.load[model]
        link = self.cost.remote
        waiting = sum(self.prices.nbytes[which] for which, _ in machine.line) if machine is not None else 0
        return link.seconds(waiting + self.prices.nbytes[model]) / link.speed(len(self._remote) + 1)

    def free(self, now: float, client: int) -> None:
        """A client has finished its request."""
        number = self._on[client]
        self._running[number] -= 1
        if not self._running[number]:
            machine = self.machines[number]
            machine.busy += now - machine.since
        self.clients.next(now, client)

    def _start(self, now: float, request: int, client: int) -> None:
        number = self._route(request)
        machine = self.machines.get(number)
        if machine is None:
            machine = self.machines[number] = _Machine(self, number)
        if not self._running[number]:
            machine.since = now
        self._running[number] += 1
        self._on[client] = self.node[request] = number
        self.appears(self.table.model[request], number)
        machine.start(now, request, client)
        self._note(machine)

    def _note(self, machine: _Machine) -> None:
        if machine.due < inf:
            heapq.heappush(self._dues, (machine.due, machine.number))

    def _due(self) -> float:
        dues, machines = self._dues, self.machines
        while dues and machines[dues[0][1]].due != dues[0][0]:
            heapq.heappop(dues)
        return min(self._remote.due, dues[0][0] if dues else inf)

    def _step(self) -> None:
        now = self._due()
        if self._remote.due <= now:
            machine = self._remote.pop()
            machine.arrived(now)
        else:
            machine = self.machines[heapq.heappop(self._dues)[1]]
            machine.step()
        self._note(machine)
