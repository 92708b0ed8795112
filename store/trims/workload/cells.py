"""One cell of a map, measured: the same stream on both sides, and the figures that compare them.

The trims side begins with an empty manager of the given budget, so a cell pays for its first loads. `unlimited` is the
same stream once more with room for every model: the machine that is not oversubscribed. Native is the same stream with
the same number of clients, each with a private copy. Speed-ups compare each request with its model alone, natively.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trims.errors import UsageError
from trims.workload import outcomes as rows
from trims.workload.plan import Plan, Stream
from trims.workload.runner import Watch, run
from trims.workload.setting import Baseline, Run, Setting
from trims.workload.summary import Cell, geometric_mean, interval, ratios, summarise
from trims.workload.world import World

ROOM = 1.25
"""Room of the unlimited side over all its models: alignment and spare pages must not make it evict."""
_SPARE = 512 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is measured of a cell. sides: "trims", "native", "unlimited"; budget in bytes; min_resident in seconds."""

    setting: Setting
    budget: int
    policy: str = "lru"
    sides: tuple[str, ...] = ("trims", "native")
    min_resident: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A cell and the runs it is made of, by side."""

    cell: Cell
    runs: Mapping[str, Run]
    stream: Stream
    notes: tuple[str, ...] = field(default=())


Watching = Callable[[str], Watch]
"""Gives, for a side, what to call with its progress."""
Ending = Callable[[str, Run], None]
"""Called with a side and its run."""


def measure(
    plan: Plan,
    wanted: Wanted,
    world: World,
    alone: Mapping[str, Baseline],
    watching: Watching | None = None,
    stream: Stream | None = None,
    ending: Ending | None = None,
) -> Measured:
    """Run the plan's stream (or `stream`, a recorded one) on every wanted side, and put the figures together.

    alone: native times of each model alone, by name, with the same function and page cache; empty leaves speed-ups out.
    ending: called after each side's run, before its manager ends, to see what it holds.
    Raises as `runner.run`; UsageError when the trims side is not among the sides.
    """
    if "trims" not in wanted.sides:
        raise UsageError("a cell needs the side trims", "without it there is nothing to compare")
    asked = plan.stream() if stream is None else stream
    runs: dict[str, Run] = {}
    for side in wanted.sides:
        watch = watching(side) if watching is not None else None
        runs[side] = serve(asked, side, wanted, world, watch, ending)
    return Measured(_cell(plan, asked, wanted, alone, runs), runs, asked, _notes(runs))


def serve(
    stream: Stream,
    side: str,
    wanted: Wanted,
    world: World,
    watch: Watch | None = None,
    ending: Ending | None = None,
) -> Run:
    """The stream on one side: "trims" with the wanted budget, "unlimited" with room for all, or "native"."""
    if side == "native":
        world.stop()  # its residents are memory that a machine without trims would have for itself
        found = run(stream, wanted.setting.on("native"), world, watch)
        if ending is not None:
            ending(side, found)
        return found
    room = int(sum(world.of(model).nbytes for model in stream.models) * ROOM) + _SPARE
    world.start(wanted.budget if side == "trims" else room, wanted.policy, wanted.min_resident)
    try:
        found = run(stream, wanted.setting.on("trims"), world, watch)
        if ending is not None:
            ending(side, found)
        return found
    finally:
        world.stop()


def _cell(plan: Plan, stream: Stream, wanted: Wanted, alone: Mapping[str, Baseline], runs: Mapping[str, Run]) -> Cell:
    trims = summarise(runs["trims"].outcomes, stream.models)
    native = summarise(runs["native"].outcomes, stream.models, "native") if "native" in runs else None
    unlimited = summarise(runs["unlimited"].outcomes, stream.models, "unlimited") if "unlimited" in runs else None
    served = rows.ok(runs["trims"].outcomes).any()
    done = {name: baseline.done for name, baseline in alone.items()}
    ready = {name: baseline.ready for name, baseline in alone.items()}
    of_done = ratios(runs["trims"].outcomes, stream.models, done) if alone and served else None
    of_ready = ratios(runs["trims"].outcomes, stream.models, ready, until="ready") if alone and served else None
    return Cell(
        share=plan.share,
        clients=stream.clients,
        distribution=str(plan.distribution),
        policy=wanted.policy,
        budget=wanted.budget,
        requests=len(stream),
        seed=plan.seed,
        rate=plan.rate,
        cache=wanted.setting.cache,
        function=wanted.setting.function,
        simulated=False,
        trims=trims,
        native=native,
        unlimited=unlimited,
        speedup=None if of_done is None else geometric_mean(of_done),
        ready_speedup=None if of_ready is None else geometric_mean(of_ready),
        batch_ratio=None if native is None or not trims.seconds else native.seconds / trims.seconds,
        penalty=None if unlimited is None or not unlimited.mean else trims.mean / unlimited.mean - 1,
        speedup_interval=None if of_done is None else interval(of_done),
        arrival=str(plan.arrival),
    )


def _notes(runs: Mapping[str, Run]) -> tuple[str, ...]:
    return tuple(f"{side}: {note}" for side, found in runs.items() for note in found.notes)
