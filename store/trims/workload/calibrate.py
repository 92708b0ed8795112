"""Measure what things cost on this machine, for simulated runs: real requests in a world of their own, then fits.

Runs, in this order, each a list of requests drawn once and for all by its own seed:

    hits       every model resident, 1, 2, 4 and 8 clients: the parts of a request, straight lines over bytes (least
               squares on the means of each model, which keeps the mean of all), and slowdown(k) = the seconds that k
               clients need for a request each, over those of one
    loads      half of the models' bytes as budget, uniform, 1 client, page cache warm, then cold: what a request waits
               longer than a hit is its load, as latency + bytes / bandwidth
    crowds     the same with 2 and 4 clients. What is not to be seen from outside, how loads share the disk and how much
               they slow functions, is what makes the simulator's mean latency of these runs nearest to the measured
    native     1 client, the same functions from their files

Medians hide what means pay for (the machine's other work), so means are used throughout: a simulated run is to have
the mean of a real one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.workload import machine, runner, zoo
from trims.workload import outcomes as rows
from trims.workload.cost import Cost, Line, Link
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.plan import Stream
from trims.workload.setting import Run, Setting
from trims.workload.simulator import Setup, simulate
from trims.workload.world import World

CROWDS: Final = (2, 4, 8)
SHARE: Final = 0.5
_ROOMY: Final = 1.25
_UNCONNECTED: Final = 0.5
"""Part of what a hit needs before ready that comes before the manager is asked: it cannot be seen from outside, and
moves only when a request is counted, not how long it takes."""

_WEIGHTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
_FACTORS: Final = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 3.0)

Say = Callable[[str], "runner.Watch | None"]
"""Called with the name of a run before it: gives its watch."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Room:
    """Models as they lie in a world: `files` to be asked for, `placed` with the bytes that they take in memory."""

    files: tuple[ModelSpec, ...]
    placed: tuple[ModelSpec, ...]

    @property
    def nbytes(self) -> int:
        """What holds them all."""
        return total_bytes(self.placed)


def furnish(world: World, scale: float, directory: str, progress: zoo.Progress | None = None) -> Room:
    """The paper's models at `scale`, built in `directory` when missing and imported into the world."""
    files = zoo.build(zoo.paper_models(scale), directory, scale=scale, progress=progress, weights_only=True)
    world.import_models(files)
    return Room(files, tuple(replace(model, nbytes=world.of(model).nbytes) for model in files))


def work(models: int, requests: int) -> int:
    """How many requests a calibration serves."""
    return requests * (len(CROWDS) + 1 + 2 + 3) + models * (1 + 3)


def calibrate(world: World, room: Room, requests: int, say: Say) -> Cost:
    """Measure this machine's costs. Raises as `runner.run`; leaves no manager running."""
    setting = Setting(function="weights")
    count = len(room.files)
    hits = _hits(world, room, setting, requests, say)
    uniform = _draw(count, requests, 2)
    loads = {cache: _loads(world, room, setting, uniform, 1, cache, say) for cache in ("warm", "cold")}
    parts = Parts((hits[1], loads["warm"]), room)
    cost = _first(parts, world, hits)
    cost = replace(cost, cached=_link(loads["warm"], parts, room), cold=_link(loads["cold"], parts, room))
    crowds = [(k, "warm", _loads(world, room, setting, _draw(count, requests, 10 + k), k, "warm", say)) for k in (2, 4)]
    cost = _sharing(cost, room, "warm", crowds)
    crowd = (2, "cold", _loads(world, room, setting, _draw(count, requests, 20), 2, "cold", say))
    pause = max(0.0, gap(loads["cold"]) - cost.finish)
    shared = _sharing(replace(cost, finish=cost.finish + pause), room, "cold", [crowd])
    world.stop()
    cost = _natively(replace(shared, finish=cost.finish), world, room, setting, say)
    return replace(cost, about={**cost.about, "cold_pause": pause})


# ---- runs


def _draw(models: int, requests: int, seed: int) -> npt.NDArray[np.int32]:
    uniform = np.random.Generator(np.random.PCG64(seed)).random(requests)
    return (uniform * models).astype(np.int32)


def _hits(world: World, room: Room, setting: Setting, requests: int, say: Say) -> dict[int, Run]:
    """Runs of hits alone, by clients. The first requests, one a model, bring them in; they are left out."""
    world.start(int(room.nbytes * _ROOMY))
    count, found = len(room.files), {}
    for clients in (1, *CROWDS):
        bring = np.arange(count, dtype=np.int32) if clients == 1 else np.zeros(0, np.int32)
        asked = np.concatenate((bring, _draw(count, requests, 1)))
        watch = say(f"hits, {clients} {'client' if clients == 1 else 'clients'}")
        found[clients] = runner.run(Stream(room.files, asked, None, clients), setting, world, watch)
    return found


def _loads(
    world: World, room: Room, setting: Setting, asked: npt.NDArray[np.int32], clients: int, cache: str, say: Say
) -> Run:
    world.start(int(room.nbytes * SHARE))
    watch = say(f"loads, page cache {cache}, {clients} {'client' if clients == 1 else 'clients'}")
    return runner.run(Stream(room.files, asked, None, clients), replace(setting, cache=cache), world, watch)


def _natively(cost: Cost, world: World, room: Room, setting: Setting, say: Say) -> Cost:
    asked = np.arange(3 * len(room.files), dtype=np.int32) % len(room.files)
    stream = Stream(room.files, asked)
    run = runner.run(stream, setting.on("native"), world, say("natively"))
    served = run.outcomes[rows.ok(run.outcomes)]
    nbytes = _sizes(room)[served["model"]]
    opened = line(nbytes, np.maximum(0.0, served["ready"] - served["began"] - cost.connect), served["model"])
    return replace(cost, native=opened, native_compute=line(nbytes, served["done"] - served["ready"], served["model"]))


# ---- fits


class Parts:
    """The parts of a request, as lines over bytes: of hits until ready, of all requests for the rest.

    Runs with loads in them are among `runs`: what a load leaves behind (memory being prepared for the next) slows the
    requests after it, hits too.
    """

    def __init__(self, runs: Sequence[Run], room: Room) -> None:
        served = np.concatenate([run.outcomes[rows.ok(run.outcomes)] for run in runs])
        hit = served[served["how"] == rows.HIT]
        nbytes = _sizes(room)
        self.fork = float((served["began"] - served["asked"]).mean())
        self.ready = line(nbytes[hit["model"]], hit["ready"] - hit["began"], hit["model"])
        self.compute = line(nbytes[served["model"]], served["done"] - served["ready"], served["model"])
        self.finish = float(np.average([gap(run) for run in runs], weights=[len(run.outcomes) for run in runs]))


def _first(parts: Parts, world: World, hits: dict[int, Run]) -> Cost:
    """All but the disk."""
    connect = parts.ready.fixed * _UNCONNECTED
    about = {**machine.describe(world.directory), "function": "weights", "start": "fork"}
    return Cost(
        cores=len(os.sched_getaffinity(0)), fork=parts.fork, connect=connect,
        attach=Line(parts.ready.fixed - connect, parts.ready.per_byte), compute=parts.compute, finish=parts.finish,
        cold=Link(1e9, 1e9), cached=Link(1e9, 1e9), native=Line(0.0), native_compute=Line(0.0),
        slowdown=slowdown({k: cycle(run) for k, run in hits.items()}), measured=True, about=about,
    )  # fmt: skip


def cycle(run: Run) -> float:
    """Seconds that each client needs for a request, from taking it to taking the next, hits only."""
    hit = run.outcomes[run.outcomes["how"] == rows.HIT]
    clients = len(np.unique(hit["client"]))
    return float(hit["done"].max() - hit["asked"].min()) * clients / len(hit)


def slowdown(cycles: dict[int, float]) -> tuple[tuple[float, float], ...]:
    """((clients, times slower than one alone), ...), never less than for fewer clients."""
    found: list[tuple[float, float]] = []
    for clients in sorted(cycles):
        times = cycles[clients] / cycles[1]
        found.append((float(clients), max(1.0, times, found[-1][1] if found else 1.0)))
    return tuple(found)


def line(nbytes: npt.NDArray[np.int64], seconds: Floats, groups: npt.NDArray[np.int32]) -> Line:
    """The straight line with nothing below 0 that is nearest to the means of the groups, each weighted by its size.

    Least squares, non-negative: if the fixed part would be below 0 the line goes through 0, and if it would fall it is
    flat; either keeps the mean of all.
    """
    if not len(nbytes):
        return Line(0.0)
    kinds = np.unique(groups)
    weights = np.array([np.count_nonzero(groups == kind) for kind in kinds], dtype=np.float64)
    x = np.array([nbytes[groups == kind].mean() for kind in kinds])
    y = np.array([seconds[groups == kind].mean() for kind in kinds])
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    spread = np.average((x - mean_x) ** 2, weights=weights)
    slope = np.average((x - mean_x) * (y - mean_y), weights=weights) / spread if spread > 0 else 0.0
    fixed = mean_y - slope * mean_x
    if slope < 0 or not math.isfinite(slope):
        return Line(max(0.0, float(mean_y)))
    if fixed < 0:
        return Line(0.0, max(0.0, float(mean_y / mean_x)))
    return Line(float(fixed), float(slope))


def _link(run: Run, parts: Parts, room: Room) -> Link:
    """The disk alone, from what loads waited longer than hits would have."""
    loaded = run.outcomes[run.outcomes["how"] == rows.LOADED]
    nbytes = _sizes(room)[loaded["model"]]
    hit = parts.ready.fixed + parts.ready.per_byte * nbytes
    found = line(nbytes, loaded["ready"] - loaded["began"] - hit, loaded["model"])
    alone = 1 / found.per_byte if found.per_byte > 0 else 1e12
    return Link(alone, alone, found.fixed)


def _sharing(cost: Cost, room: Room, cache: str, crowds: Sequence[tuple[int, str, Run]]) -> Cost:
    """The cost with how loads share the disk, and (warm) how they slow functions, chosen by the simulator."""
    link = cost.disk(cache)
    weights = _WEIGHTS if cache == "warm" else (cost.load_weight,)
    candidates = [
        _with_disk(replace(cost, load_weight=weight), cache, replace(link, together=link.alone * factor))
        for factor in _FACTORS
        for weight in weights
    ]
    return min(candidates, key=lambda each: sum(_miss(each, room, crowd) for crowd in crowds))


def _with_disk(cost: Cost, cache: str, link: Link) -> Cost:
    return replace(cost, cold=link) if cache == "cold" else replace(cost, cached=link)


def _miss(cost: Cost, room: Room, crowd: tuple[int, str, Run]) -> float:
    """How far the simulated mean latency of a run lies from its own, as a part of it."""
    clients, cache, run = crowd
    again = simulate(replay(run, room, clients), Setup(int(room.nbytes * SHARE), cache=cache), cost)
    measured = float(rows.latency(run.outcomes[rows.ok(run.outcomes)]).mean())
    return abs(float(rows.latency(again.outcomes).mean()) / measured - 1)


def replay(run: Run, room: Room, clients: int, timed: bool = False) -> Stream:
    """The stream of a real run, in the order in which its requests were asked for. timed: at their times, too."""
    order = np.argsort(run.outcomes["asked"], kind="stable")
    asked = run.outcomes[order]
    return Stream(room.placed, asked["model"], np.maximum(0.0, asked["asked"]) if timed else None, clients)


def gap(run: Run) -> float:
    """Mean seconds from a client's result to its next request."""
    gaps: list[Any] = []
    for client in np.unique(run.outcomes["client"]):
        own = np.sort(run.outcomes[run.outcomes["client"] == client], order="asked")
        gaps.append(own["asked"][1:] - own["done"][:-1])
    found = np.concatenate(gaps) if gaps else np.zeros(0)
    return float(found.mean()) if len(found) else 0.0


def _sizes(room: Room) -> npt.NDArray[np.int64]:
    return np.array([model.nbytes for model in room.placed], dtype=np.int64)
