"""What each eviction policy costs with 10,000 residents: a hit, a decision, and both through the whole machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from bench.harness import Figure, Row, interleave, report, show
from trims.residency import effects as fx
from trims.residency import events as ev
from trims.residency.machine import Machine
from trims.residency.policies import POLICIES, Policy, make

MANY = 10_000
BATCH = 200
TARGET = 20e-6
FOREVER = float("inf")


def run(quick: bool) -> None:
    rounds = 5 if quick else 50
    one_by_one = [name for name, policy in POLICIES.items() if policy.evicts and not (policy.sweeps or policy.eager)]
    rows = [
        row("a hit, held and released, by the policy alone", using, list(POLICIES), rounds, TARGET),
        row("a victim goes and another comes, by the policy alone", deciding, list(POLICIES), rounds, TARGET),
        row("attach and release of a resident, by the machine", attaching, list(POLICIES), rounds),
        row("attach that evicts one, loads and releases, by the machine", missing, one_by_one, rounds),
    ]
    notes = ["trims: gdsf, the default. The requests are the same for each; a figure is the mean of a batch of 200."]
    report("policies", f"Policies, with {MANY:,} residents", rows, notes, quick)


def row(what: str, work: Callable[[str], Callable[[], float]], names: list[str], rounds: int, target: float = 0) -> Row:
    """One kind of work, by every policy in turn; target: seconds that none may exceed, 0 for no target."""
    figures: dict[str, Figure] = interleave({name: work(name) for name in names}, rounds)
    worst = max(figure.p50 for figure in figures.values())
    ours = figures.pop("gdsf")
    if not target:
        return Row(what, ours, figures)
    return Row(what, ours, figures, f"{show(target, 's')} for each policy", worst <= target)


def spread(many: int) -> Iterator[int]:
    """Numbers below `many`, small ones far more often: the square of even ones, from a fixed sequence."""
    state = 1
    while True:
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        yield int(many * (state / 2**64) ** 2)


def keys(start: int, many: int) -> list[ev.Key]:
    return [ev.Key(f"{n:064x}", "raw", "host") for n in range(start, start + many)]


def full(name: str) -> tuple[Policy, list[ev.Key]]:
    policy, there = make(name), keys(0, MANY)
    for n, key in enumerate(there):
        policy.insert(key, 1 + n % 50, 0.01 * (1 + n % 7), float(n))
    wanted = spread(MANY)
    for n in range(4 * MANY):
        policy.hit(there[next(wanted)], float(MANY + n))
    return policy, there


def using(name: str) -> Callable[[], float]:
    policy, there = full(name)
    wanted = spread(MANY)

    def batch() -> float:
        used = [there[next(wanted)] for _ in range(BATCH)]
        begun = time.perf_counter()
        for key in used:
            policy.hold(key)
            policy.hit(key, 1e6)
            policy.release(key, 1e6)
        return (time.perf_counter() - begun) / BATCH

    return batch


def deciding(name: str) -> Callable[[], float]:
    policy, _ = full(name)
    coming = deque(keys(MANY, BATCH))

    def batch() -> float:
        begun = time.perf_counter()
        for _ in range(BATCH):
            victim = next(policy.victims(1e6))
            policy.chosen(victim)
            policy.remove(victim)
            coming.append(victim)
            policy.insert(coming.popleft(), 7, 0.02, 1e6)
        return (time.perf_counter() - begun) / BATCH

    return batch


class Server:
    """A machine with MANY residents of equal size and not a byte free; loads and frees end at once."""

    def __init__(self, name: str) -> None:
        self.machine = Machine({"host": MANY}, make("lru" if name == "eager" else name))
        self.now = 0.0
        self.requests = 0
        self.machine.handle(ev.Opened(1, ev.Who(1, 1, 0)), 0.0)
        self.there = keys(0, MANY)
        for key in self.there:
            self.ask(ev.WarmAsked(1, self.next(), FOREVER, key, "m", 1))

    def next(self) -> int:
        self.requests += 1
        return self.requests

    def ask(self, event: ev.Event) -> int:
        """Tell one event and all that follows; the number of the lease that was granted, or 0."""
        self.now += 0.001
        lease, todo = 0, deque(self.machine.handle(event, self.now))
        while todo:
            effect = todo.popleft()
            if isinstance(effect, fx.Load):
                todo += self.machine.handle(ev.Loaded(effect.key, effect.load, effect.nbytes), self.now)
            elif isinstance(effect, fx.Free):
                todo += self.machine.handle(ev.Freed(effect.key), self.now)
            elif isinstance(effect, fx.Grant):
                lease = effect.lease
        return lease

    def use(self, key: ev.Key) -> None:
        self.ask(ev.Released(1, self.ask(ev.AttachAsked(1, self.next(), FOREVER, key, "m", 1))))


def attaching(name: str) -> Callable[[], float]:
    server, wanted = Server(name), spread(MANY)

    def batch() -> float:
        used = [server.there[next(wanted)] for _ in range(BATCH)]
        begun = time.perf_counter()
        for key in used:
            server.use(key)
        return (time.perf_counter() - begun) / BATCH

    return batch


def missing(name: str) -> Callable[[], float]:
    server, fresh = Server(name), MANY

    def batch() -> float:
        nonlocal fresh
        coming = keys(fresh, BATCH)
        fresh += BATCH
        begun = time.perf_counter()
        for key in coming:
            server.use(key)
        return (time.perf_counter() - begun) / BATCH

    return batch
