"""What things cost on one machine: the figures that a simulated run is made of. `trims.cost/1` is their JSON form.

A request costs processor seconds in five parts, each as measured alone on an idle machine:

    fork      asked -> began: the client has its function's process started
    connect   began -> the manager is asked: the process gets ready to ask
    attach    the manager's grant -> ready: mapping, and handing the weights to the framework
    compute   ready -> done: the first result; fixed + per_byte * bytes of weights, or as `models` says of one by name
    finish    done -> the client is free again

and, when its model is not resident, a load: latency + bytes / bandwidth from the disk, cold or out of the page cache.
n loads at once share the disk: each gets min(alone, together / n) bytes a second. k functions at once share the cores:
each is `slower(k)` times slower than alone; between measured points straight lines, beyond the last in proportion to
k (all cores are busy then). A load in flight counts as `load_weight` functions: it copies, which takes processor time;
the part `load_cpu` of a load out of the page cache is such time and is slowed as functions are. Of open arrivals,
`dispatch` is what passes until a waiting client has the request.

The native side has `native` processor seconds (fixed + per byte) for opening the file with its framework, after reading
it from the same disk; `native_compute` stands for `compute` where its first result costs otherwise (fresh pages).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

from trims.errors import BadInput
from trims.workload.models import ModelSpec

SCHEMA: Final = "trims.cost/1"


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds as a straight line over bytes: fixed + per_byte * bytes."""

    fixed: float
    per_byte: float = 0.0

    def __call__(self, nbytes: int) -> float:
        return self.fixed + self.per_byte * nbytes


@dataclass(frozen=True, slots=True)
class Link:
    """Something that bytes come over. alone, together: bytes a second of one transfer, and of all; latency: seconds."""

    alone: float
    together: float
    latency: float = 0.0

    def seconds(self, nbytes: int) -> float:
        """Of one transfer alone."""
        return self.latency + nbytes / self.alone

    def speed(self, transfers: int) -> float:
        """Of each of so many transfers, as a part of one alone."""
        return min(1.0, self.together / (self.alone * transfers))


@dataclass(frozen=True, slots=True)
class Cost:
    """The figures of one machine, as the module says. Seconds, bytes, bytes a second.

    slowdown: ((functions at once, times slower than alone), ...), ascending, from (1, 1.0) on.
    models: name -> (attach, compute) seconds of a model whose figures do not follow the lines.
    free: from evicting a region until its memory is back. measured: whether a machine was measured; about: which.
    """

    cores: int
    fork: float
    connect: float
    attach: Line
    compute: Line
    finish: float
    cold: Link
    cached: Link
    native: Line
    native_compute: Line
    free: Line = Line(0.0)
    load_weight: float = 0.0
    load_cpu: float = 0.0
    dispatch: float = 0.0
    slowdown: tuple[tuple[float, float], ...] = ()
    models: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    remote: Link = Link(1.25e9, 12.5e9, 0.02)
    measured: bool = False
    about: Mapping[str, Any] = field(default_factory=dict)

    def attach_seconds(self, model: ModelSpec) -> float:
        own = self.models.get(model.name)
        return own[0] if own else self.attach(model.nbytes)

    def compute_seconds(self, model: ModelSpec) -> float:
        own = self.models.get(model.name)
        return own[1] if own else self.compute(model.nbytes)

    def disk(self, cache: str) -> Link:
        """The disk as loads find it: "cold", or "warm" (in the page cache)."""
        return self.cold if cache == "cold" else self.cached

    def slower(self, functions: float) -> float:
        """How many times slower each of so many functions at once is than one alone; at least 1."""
        points = self.slowdown or ((1.0, 1.0), (float(self.cores), 1.0))
        if functions >= points[-1][0]:
            return max(1.0, points[-1][1] * functions / points[-1][0])
        for (left, low), (right, high) in pairwise(points):
            if functions <= right:
                return max(1.0, low + (high - low) * max(0.0, functions - left) / (right - left))
        return 1.0

    def speed(self, functions: int, loads: int) -> float:
        """Of each of so many functions while so many loads are in flight, as a part of one alone."""
        return 1.0 / self.slower(functions + self.load_weight * loads)

    def load_speed(self, cache: str, transfers: int, functions: int) -> float:
        """Of each of so many loads while so many functions run, as a part of one alone."""
        speed = self.disk(cache).speed(transfers)
        if cache == "cold" or not self.load_cpu:
            return speed
        return speed / (1 + self.load_cpu * (self.slower(functions + self.load_weight * transfers) - 1))

    def slowed(self, times: float) -> Cost:
        """The same machine at another pace: everything takes `times` as long, the remote store excepted."""
        made: dict[str, Any] = {name: getattr(self, name) * times for name in ("fork", "connect", "finish", "dispatch")}
        for name in ("attach", "compute", "native", "native_compute", "free"):
            line = getattr(self, name)
            made[name] = Line(line.fixed * times, line.per_byte * times)
        for name in ("cold", "cached"):
            link = getattr(self, name)
            made[name] = Link(link.alone / times, link.together / times, link.latency * times)
        made["models"] = {name: (attach * times, compute * times) for name, (attach, compute) in self.models.items()}
        return replace(self, **made)

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}


# A laptop-class machine of four cores with an NVMe disk, in round figures. Nobody measured it: `trims bench calibrate`.
ASSUMED: Final = Cost(
    cores=4,
    fork=0.003,
    connect=0.001,
    attach=Line(0.001),
    compute=Line(0.001, 1.0e-10),
    finish=0.001,
    cold=Link(1.5e9, 2.5e9, 0.002),
    cached=Link(3.0e9, 6.0e9, 0.001),
    native=Line(0.005, 3.0e-10),
    native_compute=Line(0.001, 1.0e-10),
    free=Line(0.0, 5.0e-11),
    load_weight=0.5,
    slowdown=((1.0, 1.0), (4.0, 1.2)),
    about={"machine": "assumed, not measured: four cores, an NVMe disk, round figures"},
)


def to_json(cost: Cost) -> str:
    """The text of a cost file."""
    return json.dumps(cost.to_dict(), indent=2, sort_keys=False) + "\n"


def from_json(text: str, name: str = "the cost file") -> Cost:
    """The cost that `to_json` wrote; raises BadInput that names what is wrong."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} cannot be read", f"it is no JSON: {error}") from None
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA:
        raise BadInput(f"{name} is no cost file", f"it is not {SCHEMA}", "make one with `trims bench calibrate`")
    try:
        return _checked(_build(fields), name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"{name} cannot be used", f"a field is missing or of the wrong kind: {error}") from None


def _build(fields: Mapping[str, Any]) -> Cost:
    made: dict[str, Any] = {name: float(fields[name]) for name in ("fork", "connect", "finish", "load_weight")}
    made |= {name: float(fields.get(name, 0.0)) for name in ("load_cpu", "dispatch")}
    for name in ("attach", "compute", "native", "native_compute", "free"):
        made[name] = Line(float(fields[name]["fixed"]), float(fields[name]["per_byte"]))
    for name in ("cold", "cached", "remote"):
        made[name] = Link(*(float(fields[name][part]) for part in ("alone", "together", "latency")))
    return Cost(
        cores=int(fields["cores"]),
        slowdown=tuple((float(k), float(times)) for k, times in fields["slowdown"]),
        models={str(name): (float(a), float(c)) for name, (a, c) in fields["models"].items()},
        measured=bool(fields["measured"]),
        about=dict(fields["about"]),
        **made,
    )


def _checked(cost: Cost, name: str) -> Cost:
    seconds = [cost.fork, cost.connect, cost.finish, cost.load_weight, cost.load_cpu, cost.dispatch]
    for line in (cost.attach, cost.compute, cost.native, cost.native_compute, cost.free):
        seconds += [line.fixed, line.per_byte]
    for link in (cost.cold, cost.cached, cost.remote):
        seconds.append(link.latency)
        if not (0 < link.alone < math.inf and 0 < link.together < math.inf):
            raise BadInput(f"{name} cannot be used", "a bandwidth is not above 0")
    for pair in cost.models.values():
        seconds += pair
    if not all(0 <= value < math.inf for value in seconds) or cost.cores < 1:
        raise BadInput(f"{name} cannot be used", "a time is negative, or no number, or there is no core")
    if not _ascending([k for k, _ in cost.slowdown]) or not all(times >= 1 for _, times in cost.slowdown):
        raise BadInput(f"{name} cannot be used", "slowdown does not ascend from 1, or is below 1")
    return cost


def _ascending(numbers: Sequence[float]) -> bool:
    return all(left < right for left, right in pairwise(numbers)) and min(numbers, default=1) >= 1
