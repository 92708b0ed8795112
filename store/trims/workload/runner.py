"""Runs of a workload with real processes: `run` serves a stream, `alone` times models one at a time.

Before anything runs, what cannot fit is refused and a warm page cache is made warm; afterwards the results of all
requests, on whichever side, must be the same, or the run is none. How requests are released and heard of is in `drive`.
However a run ends, no process of it is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trims import units
from trims.errors import Damaged, NoRoom, TrimsError, UsageError
from trims.linux import process
from trims.workload import board as boards
from trims.workload import coldness
from trims.workload.drive import Drive, Watch
from trims.workload.functions import READS
from trims.workload.models import ModelSpec
from trims.workload.plan import Stream
from trims.workload.setting import WARM, Baseline, Coldness, Run, Setting
from trims.workload.world import World

__all__ = ["Baseline", "Coldness", "Run", "Setting", "Watch", "World", "alone", "run"]

_COPIES = {"onnxruntime": 2}  # of the weights: as they are in the file, and as its optimiser lays them out


def run(
    stream: Stream,
    setting: Setting,
    world: World,
    watch: Watch | None = None,
    before: Callable[[int], None] | None = None,
) -> Run:
    """Serve every request of the stream, by `stream.clients` clients.

    The models must have been imported, and for the trims side the manager runs. before: called with each request's
    number while no other is under way: requests are then served one at a time.
    Raises NoRoom when the machine's memory cannot hold what may be in use at once, Damaged when the two sides, or two
    requests, give different results, TrimsError when clients do not start or keep dying.
    """
    models = _models(stream, setting, world)
    notes = guard(stream, setting, world)
    files = [model["files"] for model in models]
    looks: list[float] = []
    if setting.cache == "warm":
        coldness.heat(files)
        looks = coldness.look(files)
    counted = world.counters() if setting.side == "trims" else {}
    with Drive(stream, setting, models, world, watch, before) as drive:
        began = drive.serve()
        outcomes = drive.board.outcomes(len(stream), began)
        rows = drive.board.rows[: len(stream)].copy()
        starts, reasons = drive.starts, drive.reasons()
    counters = {}
    if counted and world.running:
        counters = {name: value - counted.get(name, 0) for name, value in world.counters().items()}
    if setting.cache == "warm":
        looks += coldness.look(files)
    else:
        looks = [float(value) for value in rows["cached"] if not math.isnan(value)]
    found = coldness.found(setting.cache, looks)
    _compare(rows, stream, setting, world)
    seconds = float(outcomes["done"].max() - outcomes["asked"].min()) if len(outcomes) else 0.0
    return Run(
        outcomes, setting, began, seconds, counters, found, tuple(looks), reasons, (*notes, *_doubts(found)), starts
    )


def alone(
    models: Sequence[ModelSpec],
    setting: Setting,
    world: World,
    repeats: int = 5,
    watch: Watch | None = None,
    how: str = "hit",
) -> dict[str, Baseline]:
    """Each model by itself, one request at a time, `repeats` requests: model name -> medians.

    how: on the trims side, "hit" has the model resident before, "load" evicted before each request; a load is cold or
    warm as `setting.cache` says, and so is a native request. Raises as `run`, and TrimsError when a request fails.
    """
    if how not in ("hit", "load"):
        raise UsageError(f"unknown kind of baseline {how!r}", "", "known: hit, load")
    asked = np.repeat(np.arange(len(models), dtype=np.int32), repeats)
    stream = Stream(tuple(models), asked)
    trims = setting.side == "trims"

    def before(request: int) -> None:
        model = models[asked[request]]
        first = request % repeats == 0
        if setting.cache == "warm" and first:  # again, as the models before it may have taken its room
            coldness.heat([_files(model, setting, world)])
        if trims and how == "load":
            world.evict([model])
        elif trims and first:
            world.evict([models[asked[request - 1]]] if request else [])  # the one before it made no room
            world.warm([model])

    done = run(stream, setting, world, watch, before)
    if done.reasons:
        request, why = next(iter(done.reasons.items()))
        raise TrimsError(f"model {models[asked[request]].name!r} alone failed", why)
    wanted = {"native": 3, "hit": 0, "load": 2}["native" if not trims else how]
    if not (done.outcomes["how"] == wanted).all():
        raise TrimsError(f"a baseline of kind {how} was not served so", "another program uses this world's manager")
    latency = (done.outcomes["done"] - done.outcomes["asked"]).reshape(-1, repeats)
    ready = (done.outcomes["ready"] - done.outcomes["asked"]).reshape(-1, repeats)
    return {
        model.name: Baseline(
            float(np.median(latency[at])), float(np.median(ready[at])), repeats, _spread(latency[at]), done.coldness
        )
        for at, model in enumerate(models)
    }


def guard(stream: Stream, setting: Setting, world: World) -> tuple[str, ...]:
    """Raise NoRoom when the clients' private copies and the budget exceed the machine's memory; gives remarks.

    Natively each client holds its model in private memory, at worst all of them the largest one.
    """
    if setting.side == "trims":
        for model in stream.models:
            check_budget(model, world.of(model).nbytes, world.budget)
    copies = (_COPIES.get(function_of(model, setting), 1) * model.nbytes for model in stream.models)
    private = stream.clients * max(copies, default=0) if setting.side == "native" else 0
    need = private + (world.budget if world.running else 0)
    limit = process.memory_limit()
    if need > limit:
        raise NoRoom(
            f"{stream.clients} clients do not fit into memory",
            f"{units.format_size(need)} may be in use at once, the machine has {units.format_size(limit)}",
            "take fewer --clients, a smaller --budget or smaller models",
        )
    free = process.memory_available() + (world.budget if world.running else 0)
    if need > free:
        return (f"{units.format_size(need)} may be in use at once and {units.format_size(free)} is free: it may swap",)
    return ()


def check_budget(model: ModelSpec, nbytes: int, budget: int) -> None:
    """Raise NoRoom when a model whose region takes `nbytes` can never be resident."""
    if nbytes > budget:
        raise NoRoom(
            f"the budget of {units.format_size(budget)} cannot hold {model.name}",
            f"its region takes {nbytes} bytes, the budget is {budget}",
            "give a larger --budget",
        )


def _models(stream: Stream, setting: Setting, world: World) -> list[dict[str, Any]]:
    """What clients are told of each model."""
    return [
        {
            "ref": world.of(model).ref,
            "file": model.file,
            "files": list(_files(model, setting, world)),
            "function": function_of(model, setting),
        }
        for model in stream.models
    ]


def function_of(model: ModelSpec, setting: Setting) -> str:
    """The function that serves this model. Raises UsageError when it cannot read the model's file."""
    name = model.runs if setting.function == "auto" else setting.function
    reads = READS.get(name)
    if reads is not None and not model.file.endswith(reads):
        raise UsageError(
            f"the function {name} cannot run {model.name}",
            f"natively it loads files that end with {', '.join(reads)}",
            "choose another --function; auto runs each model by its own",
        )
    return name


def _files(model: ModelSpec, setting: Setting, world: World) -> tuple[str, ...]:
    """The files that a load of the model reads, on this side."""
    return world.of(model).files if setting.side == "trims" else (model.file,)


def _doubts(found: Coldness | None) -> tuple[str, ...]:
    if found is None or found.proven:
        return ()
    if found.cache == "warm":
        return (f"not all was warm: {found.least:.0%} of a model was in the page cache, {WARM:.0%} is asked for",)
    return (f"not all was cold: up to {found.most:.0%} of a model was still in the page cache",)


def _compare(rows: Any, stream: Stream, setting: Setting, world: World) -> None:
    """One result a model and function, whoever computes it. Raises Damaged."""
    for row in rows[rows["state"] == boards.SERVED]:
        model = stream.models[row["model"]]
        share = "max" if setting.side == "trims" and setting.share == "max" else "exact"
        key = (model.name, function_of(model, setting), share, str(setting.threads))
        known = world.checksums.setdefault(key, int(row["checksum"]))
        if known != int(row["checksum"]):
            raise Damaged(
                f"{model.name} gave two different results",
                f"{known:016x} before, {int(row['checksum']):016x} on the side {setting.side}",
                "see `trims verify`; figures of wrong results are not reported",
            )


def _spread(x: Any) -> float:
    low, high = np.percentile(x, (25, 75))
    return float(high - low) / 2
