"""Which machine of a fleet serves a request.

    random       any machine, evenly, by a seeded generator
    hash         the best of a model's machines: those in order of the hash of (model, machine), highest first, so that
                 a machine more or less moves only its own models (rendezvous hashing: Thaler and Ravishankar, "Using
                 name-based mappings to increase hit rates", IEEE/ACM ToN 6(1), 1998). `hash:k=2` takes the least loaded
                 of the two best (the power of two choices: Mitzenmacher, IEEE TPDS 12(10), 2001)
    warm-first   the least loaded machine where the model is resident or on its way; but the least loaded of the k best
                 of the others, when the model is there nowhere, or when the queue costs more than a load would:

        compute * slower(running there + 1)  >  load here + compute * slower(running here + 1)

where compute is the processor seconds of the request, slower(n) the cost model's slowdown of n functions at once, and
load what bringing the model costs now: from the machine's disk, or over the remote store's link as busy as it is. So
a model spreads over as many machines as its load is worth, and no more: there is no threshold to set. Of equally loaded
machines the one with the higher hash is taken, of warm ones the one that was warm first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from trims.workload.named import Parameter, Parameters, complete, read, spell

KNOWN: Final[dict[str, tuple[Parameter, ...]]] = {
    "random": (),
    "hash": (Parameter("k", 1.0, most=1000.0),),
    "warm-first": (Parameter("k", 2.0, most=1000.0),),
}
_RANDOM = 4
"""The spawn key of random routing; plans use those below."""


@dataclass(frozen=True, slots=True)
class Routing:
    """A way of routing. Raises UsageError for an unknown name, or a k out of range."""

    name: str
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", complete("routing", self.name, dict(self.parameters), KNOWN))

    def __str__(self) -> str:
        """What `parse` reads; without a k that is the usual one."""
        usual = self.parameters == complete("routing", self.name, {}, KNOWN)
        return self.name if usual else spell(self.name, self.parameters)

    @property
    def choices(self) -> int:
        """How many machines are looked at."""
        return max(1, int(dict(self.parameters).get("k", 1)))


def parse(text: str) -> Routing:
    """`random`, `hash`, `hash:k=2`, `warm-first`. Raises UsageError."""
    return Routing(*read("routing", text, KNOWN))


@dataclass(frozen=True, slots=True)
class View:
    """What a router sees of its fleet. model: what each request asks for.

    running: requests under way on each machine. where: model -> machines, in order of coming. compute: seconds of each
    model. load: (model, machine) -> seconds to bring it there now. slower: of so many functions at once.
    """

    model: Sequence[int]
    running: Sequence[int]
    where: Mapping[int, Mapping[int, None]]
    compute: Sequence[float]
    load: Callable[[int, int], float]
    slower: Callable[[float], float]


def router(routing: Routing, machines: int, view: View, seed: int = 0) -> Callable[[int], int]:
    """request -> machine."""
    if routing.name == "random":
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(_RANDOM,))))
        picked: list[int] = (rng.random(len(view.model)) * machines).astype(np.int64).tolist()
        return picked.__getitem__
    made = _Warm(routing.choices, machines, view)
    return made.hashed if routing.name == "hash" else made.warmest


class _Warm:
    def __init__(self, choices: int, machines: int, view: View) -> None:
        self._choices, self._machines, self._view = min(choices, machines), machines, view
        self._orders: dict[int, list[int]] = {}
        self._slower: dict[int, float] = {}

    def hashed(self, request: int) -> int:
        return self._least(self._order(self._view.model[request])[: self._choices])

    def warmest(self, request: int) -> int:
        view = self._view
        model = view.model[request]
        warm, running = view.where.get(model), view.running
        if not warm:
            return self._least(self._order(model)[: self._choices])
        there = self._least(warm)
        compute = view.compute[model]
        queue = compute * self._at(running[there] + 1)
        if queue <= compute or len(warm) == self._machines:
            return there
        here = self._least(self._others(model, warm))
        return there if queue <= view.load(model, here) + compute * self._at(running[here] + 1) else here

    def _least(self, machines: Iterable[int]) -> int:
        return min(machines, key=self._view.running.__getitem__)

    def _others(self, model: int, warm: Mapping[int, None]) -> Iterator[int]:
        """The k best that do not have it."""
        left = self._choices
        for number in self._order(model):
            if number not in warm:
                yield number
                left -= 1
                if not left:
                    return

    def _at(self, functions: int) -> float:
        found = self._slower.get(functions)
        if found is None:
            found = self._slower[functions] = self._view.slower(functions)
        return found

    def _order(self, model: int) -> list[int]:
        found = self._orders.get(model)
        if found is None:
            found = self._orders[model] = rendezvous(model, self._machines)
        return found


def rendezvous(model: int, machines: int) -> list[int]:
    """All machines in order of the hash of (model, machine), highest first.

    The hash is the finaliser of SplitMix64 over both numbers (Steele, Lea, Flood, OOPSLA 2014).
    """
    with np.errstate(over="ignore"):
        x = np.arange(1, machines + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x ^= _mix(np.uint64(model + 1) * np.uint64(0xD1B54A32D192ED03))
        order: list[int] = np.argsort(_mix(x), kind="stable")[::-1].tolist()
    return order


def _mix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
