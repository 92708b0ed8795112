"""Measure what things cost on this machine, for simulated runs: real requests in a world of their own, then fits.

Runs, in this order, each a list of requests drawn once and for all by its own seed:

    hits       every model resident, 1, 2, 4 and 8 clients: the parts of a request, by bytes and tensors for each model
               and as straight lines over bytes for any (least squares on the means of each model, which keeps the mean
               of all), and slowdown(k) = the seconds that k clients need for a request each, over those of one
    loads      half of the models' bytes as budget, uniform, 1 client, page cache warm, then cold: what a request waits
               longer than a hit is its load, as latency + bytes / bandwidth
    crowds     the same with 2 and 4 clients. What is not to be seen from outside, how loads share the disk, how much
               they slow functions and functions them, is what makes the simulator's mean latency of these runs nearest
               to the measured
    arrivals   hits that arrive at times of their own, few: what passes before a waiting client has one
    native     1 client, the same functions from their files

A virtual machine's speed drifts, by a third within minutes where this was written. So the loads of a run are taken at
the pace of its own hits, and whoever compares a run with what a calibration says measures the `pace` around it, too.

Medians hide what means pay for (the machine's other work), so means are used throughout: a simulated run is to have
the mean of a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from trims.workload import machine, runner, zoo
from trims.workload import outcomes as rows
from trims.workload.cost import Cost
from trims.workload.fits import SHARE, Parts, Room, first, gap, line, link_of, sharing_of, sizes_of
from trims.workload.plan import Stream
from trims.workload.setting import Run, Setting
from trims.workload.world import World

CROWDS: Final = (2, 4, 8)
_ROOMY: Final = 1.25
_PACE: Final = 250
_CALM: Final = 25.0
"""Arrivals a second that leave a machine idle most of the time: what passes before they begin is no queue."""

Say = Callable[[str], "runner.Watch | None"]
"""Called with the name of a run before it: gives its watch."""


def furnish(world: World, scale: float, directory: str, progress: zoo.Progress | None = None) -> Room:
    """The paper's models at `scale`, built in `directory` when missing and imported into the world."""
    files = zoo.build(zoo.paper_models(scale), directory, scale=scale, progress=progress, weights_only=True)
    world.import_models(files)
    return Room(files, tuple(replace(model, nbytes=world.of(model).nbytes) for model in files))


def work(models: int, requests: int) -> int:
    """How many requests a calibration serves."""
    return requests * (len(CROWDS) + 1 + 2 + 3) + requests // 2 + models * (1 + 1 + 3)


def pace_work(models: int) -> int:
    """How many requests it takes to find the pace."""
    return models + _PACE


def calibrate(world: World, room: Room, requests: int, say: Say) -> Cost:
    """Measure this machine's costs. Raises as `runner.run`; leaves no manager running."""
    setting = Setting(function="weights")
    count = len(room.files)
    hits = _hits(world, room, setting, requests, say)
    uniform = _draw(count, requests, 2)
    loads = {cache: _loads(world, room, setting, uniform, 1, cache, say) for cache in ("warm", "cold")}
    parts = Parts((hits[1], loads["warm"]), room)
    about = {**machine.describe(world.directory), "function": "weights", "start": "fork"}
    cost = first(parts, room, hits, about)
    cost = replace(cost, cached=link_of(loads["warm"], parts, room), cold=link_of(loads["cold"], parts, room))
    crowds = [(k, "warm", _loads(world, room, setting, _draw(count, requests, 10 + k), k, "warm", say)) for k in (2, 4)]
    cost = sharing_of(cost, room, "warm", crowds)
    crowd = (2, "cold", _loads(world, room, setting, _draw(count, requests, 20), 2, "cold", say))
    pause = max(0.0, gap(loads["cold"]) - cost.finish)
    shared = sharing_of(replace(cost, finish=cost.finish + pause), room, "cold", [crowd])
    cost = replace(shared, finish=cost.finish)
    cost = replace(cost, dispatch=_dispatch(world, room, setting, requests, cost.fork, say))
    world.stop()
    cost = _natively(cost, world, room, setting, say)
    return replace(cost, about={**cost.about, "cold_pause": pause})


def pace(world: World, room: Room, cost: Cost, say: Say) -> float:
    """How many times longer hits of one client take just now than the cost says. Leaves no manager running."""
    world.start(int(room.nbytes * _ROOMY))
    asked = np.concatenate((np.arange(len(room.files), dtype=np.int32), _draw(len(room.files), _PACE, 3)))
    run = runner.run(Stream(room.files, asked), Setting(function="weights"), world, say("pace"))
    world.stop()
    hit = run.outcomes[run.outcomes["how"] == rows.HIT]
    expected = [
        cost.fork + cost.connect + cost.attach_seconds(model) + cost.compute_seconds(model)
        for model in (room.placed[at] for at in hit["model"])
    ]
    return float(rows.latency(hit).mean() / np.mean(expected))


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


def _dispatch(world: World, room: Room, setting: Setting, requests: int, fork: float, say: Say) -> float:
    """What arrivals at times of their own wait before they begin, longer than in a closed loop."""
    world.start(int(room.nbytes * _ROOMY))
    asked = np.concatenate((np.arange(len(room.files), dtype=np.int32), _draw(len(room.files), requests // 2, 4)))
    stream = Stream(room.files, asked, np.arange(len(asked)) / _CALM, 2)
    run = runner.run(stream, setting, world, say("arrivals"))
    hit = run.outcomes[run.outcomes["how"] == rows.HIT]
    return max(0.0, float((hit["began"] - hit["asked"]).mean()) - fork)


def _natively(cost: Cost, world: World, room: Room, setting: Setting, say: Say) -> Cost:
    asked = np.arange(3 * len(room.files), dtype=np.int32) % len(room.files)
    stream = Stream(room.files, asked)
    run = runner.run(stream, setting.on("native"), world, say("natively"))
    served = run.outcomes[rows.ok(run.outcomes)]
    nbytes = sizes_of(room)[served["model"]]
    opened = line(nbytes, np.maximum(0.0, served["ready"] - served["began"] - cost.connect), served["model"])
    return replace(cost, native=opened, native_compute=line(nbytes, served["done"] - served["ready"], served["model"]))
