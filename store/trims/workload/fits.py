"""What a calibration makes of its runs: parts of requests, slowing, links, by least squares and by the simulator.

All fits keep means, not medians: a simulated run is to have the mean of a real one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.workload import outcomes as rows
from trims.workload.cost import Cost, Line, Link
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.plan import Stream
from trims.workload.setting import Run
from trims.workload.simulator import Setup, simulate

SHARE: Final = 0.5
"""Part of all models' bytes that runs with loads have as budget."""
_UNCONNECTED: Final = 0.5
"""Part of what a hit needs before ready that comes before the manager is asked: it cannot be seen from outside, and
moves only when a request is counted, not how long it takes."""

_WEIGHTS: Final = (0.0, 0.5, 1.0, 1.5, 2.0)
_PARTS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_FACTORS: Final = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 3.0)
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


class Parts:
    """The parts of a request: of hits until ready, of all requests for the rest.

    As lines over bytes, for any model, and for each model of the room by its bytes and tensors (float64[models]): every
    tensor is a view to be made, and a pass of its own.

    Runs with loads in them are among `runs`: what a load leaves behind (memory being prepared for the next) slows the
    requests after it, hits too.
    """

    def __init__(self, runs: Sequence[Run], room: Room) -> None:
        served = np.concatenate([run.outcomes[rows.ok(run.outcomes)] for run in runs])
        hit = served[served["how"] == rows.HIT]
        nbytes = sizes_of(room)
        self.fork = float((served["began"] - served["asked"]).mean())
        self.ready = line(nbytes[hit["model"]], hit["ready"] - hit["began"], hit["model"])
        self.compute = line(nbytes[served["model"]], served["done"] - served["ready"], served["model"])
        self.ready_of = by_model(room, hit["model"], hit["ready"] - hit["began"])
        self.compute_of = by_model(room, served["model"], served["done"] - served["ready"])
        self.finish = float(np.average([gap(run) for run in runs], weights=[len(run.outcomes) for run in runs]))


def first(parts: Parts, room: Room, hits: dict[int, Run], about: Mapping[str, Any]) -> Cost:
    """All but the disk."""
    connect = parts.ready.fixed * _UNCONNECTED
    return Cost(
        cores=len(os.sched_getaffinity(0)), fork=parts.fork, connect=connect,
        attach=Line(parts.ready.fixed - connect, parts.ready.per_byte), compute=parts.compute, finish=parts.finish,
        cold=Link(1e9, 1e9), cached=Link(1e9, 1e9), native=Line(0.0), native_compute=Line(0.0),
        slowdown=slowdown({k: cycle(run) for k, run in hits.items()}), measured=True, about=about,
        models={
            model.name: (max(0.0, float(ready) - connect), float(compute))
            for model, ready, compute in zip(room.placed, parts.ready_of, parts.compute_of, strict=True)
        },
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


def by_model(room: Room, asked: npt.NDArray[np.int32], seconds: Floats) -> Floats:
    """Seconds of each model of the room, float64[models]: fixed + per_byte * bytes + per_tensor * tensors.

    asked: int32[n], whose seconds each are. Least squares; a part that would be below 0 is left out and the others are
    fitted again.
    """
    parts = np.stack([np.ones(len(room.placed)), sizes_of(room), [model.tensors for model in room.placed]], axis=1)
    kept = [0, 1, 2]
    while kept and len(asked):
        scale = parts[:, kept].max(axis=0)
        found = np.linalg.lstsq(parts[asked][:, kept] / scale, seconds, rcond=None)[0]
        if (found >= 0).all():
            return np.asarray(parts[:, kept] / scale @ found, dtype=np.float64)
        kept.pop(int(np.argmin(found)))
    return np.zeros(len(room.placed))


def link_of(run: Run, parts: Parts, room: Room) -> Link:
    """The disk alone, from what loads waited longer than hits would have, at the pace of the run's own hits."""
    loaded, hit = (run.outcomes[run.outcomes["how"] == how] for how in (rows.LOADED, rows.HIT))
    pace = 1.0
    if len(hit):
        pace = float((hit["ready"] - hit["began"]).mean() / parts.ready_of[hit["model"]].mean())
    waited = (loaded["ready"] - loaded["began"]) / pace - parts.ready_of[loaded["model"]]
    found = line(sizes_of(room)[loaded["model"]], waited, loaded["model"])
    alone = 1 / found.per_byte if found.per_byte > 0 else 1e12
    return Link(alone, alone, found.fixed)


def sharing_of(cost: Cost, room: Room, cache: str, crowds: Sequence[tuple[int, str, Run]]) -> Cost:
    """The cost with how loads share the disk, and (warm) how they slow functions, chosen by the simulator."""
    link = cost.disk(cache)
    warm = cache == "warm"
    candidates = [
        _with_disk(replace(cost, load_weight=weight, load_cpu=part), cache, replace(link, together=link.alone * factor))
        for factor in _FACTORS
        for weight in (_WEIGHTS if warm else (cost.load_weight,))
        for part in (_PARTS if warm else (cost.load_cpu,))
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


def sizes_of(room: Room) -> npt.NDArray[np.int64]:
    return np.array([model.nbytes for model in room.placed], dtype=np.int64)
