"""Is the simulator right? The same requests for real and simulated, in the same recorded order, side by side.

Each check is one workload, served by real processes `repeats` times, each time by a fresh manager, and replayed on a
virtual clock in the order in which it was asked for (open arrivals at their times). Two questions are put to it:

    hits   does the mean simulated hit rate lie within 2 points of the mean of the real ones?
    mean   does the simulated mean latency lie between the least and the greatest of the real runs' means?

The second is as strict as the machine is calm: where repeated runs agree to a percent, the simulator must, too. A
machine's speed drifts between a calibration and a run, so the pace is measured before and after each run, apart from
it, and the costs are taken at that pace (`Cost.slowed`); the machine of a run is an input, its latencies are not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from trims.workload import arrivals, distributions, runner
from trims.workload import outcomes as rows
from trims.workload.calibrate import Say, pace
from trims.workload.cost import Cost
from trims.workload.fits import Room, replay
from trims.workload.plan import Plan
from trims.workload.setting import Run, Setting
from trims.workload.simulator import Setup, simulate
from trims.workload.summary import summarise
from trims.workload.world import World

POINTS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Check:
    """One workload. busy: None for a closed loop; else open arrivals at this part of what the closed loop serves."""

    name: str
    distribution: str
    share: float
    clients: int
    policy: str
    cache: str
    part: float
    busy: float | None = None


CHECKS: Final = (
    Check("one client", "pareto", 1.0, 1, "lru", "warm", 0.5),
    Check("a crowd", "zipf:s=0.9", 1.0, 4, "lru", "warm", 0.4),
    Check("half of the models", "uniform", 0.5, 2, "fifo", "warm", 0.3),
    Check("a cold disk", "exponential", 1.0, 2, "gdsf", "cold", 0.5),
    Check("open arrivals", "weibull:k=0.5", 1.0, 8, "s3fifo", "warm", 0.4, 0.3),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found: one figure a repeat. Times in seconds.

    paces: how many times slower the machine was around each run than the cost says.
    """

    check: Check
    requests: int
    budget: int
    arrival: str
    real_hits: tuple[float, ...]
    simulated_hits: tuple[float, ...]
    real_mean: tuple[float, ...]
    simulated_mean: tuple[float, ...]
    paces: tuple[float, ...] = ()

    @property
    def points(self) -> float:
        """Simulated less real hit rate, both means of the repeats."""
        return float(np.mean(self.simulated_hits) - np.mean(self.real_hits))

    @property
    def deviation(self) -> float:
        """Simulated over real mean latency, less 1."""
        return float(np.mean(self.simulated_mean) / np.mean(self.real_mean) - 1)

    @property
    def hits_agree(self) -> bool:
        return abs(self.points) <= POINTS

    @property
    def mean_agrees(self) -> bool:
        return min(self.real_mean) <= float(np.mean(self.simulated_mean)) <= max(self.real_mean)

    @property
    def agrees(self) -> bool:
        return self.hits_agree and self.mean_agrees

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        check = self.check
        return {
            "name": check.name, "distribution": check.distribution, "share": check.share, "clients": check.clients,
            "policy": check.policy, "cache": check.cache, "arrival": self.arrival, "budget": self.budget,
            "requests": self.requests, "paces": list(self.paces), "real_hit_rate": list(self.real_hits),
            "simulated_hit_rate": list(self.simulated_hits), "real_mean": list(self.real_mean),
            "simulated_mean": list(self.simulated_mean), "points": self.points, "deviation": self.deviation,
            "hits_agree": self.hits_agree, "mean_agrees": self.mean_agrees, "agrees": self.agrees,
        }  # fmt: skip


def plan(check: Check, room: Room, cost: Cost, requests: int, seed: int) -> Plan:
    """The workload of a check; the rate of open arrivals follows from what the machine can do."""
    spread = distributions.parse(check.distribution)
    closed = Plan(room.files, spread, check.share, check.clients, requests, seed=seed)
    if check.busy is None:
        return closed
    again = simulate(_placed(closed, room), _setup(check, room), cost)
    rate = float(f"{check.busy * requests / again.seconds:.3g}")
    return replace(closed, arrival=arrivals.Arrival("poisson", (("rate", rate),)))


def verify(world: World, room: Room, cost: Cost, check: Check, requests: int, repeats: int, say: Say) -> Verdict:
    """Serve one check for real and simulated. Raises as `runner.run`; leaves no manager running."""
    wanted = plan(check, room, cost, requests, seed=1)
    stream, setup = wanted.stream(), _setup(check, room)
    positions = _where(wanted, room)
    found: list[tuple[float, float, float, float]] = []
    paces: list[float] = []
    before = pace(world, room, cost, say)
    for repeat in range(repeats):
        world.start(setup.budget, check.policy)
        run = runner.run(
            stream, Setting(function="weights", cache=check.cache), world, say(f"{check.name}, run {repeat + 1}")
        )
        after = pace(world, room, cost, say)
        paces.append(math.sqrt(before * after))
        found.append(_figures(run, positions, room, check, setup, cost.slowed(paces[-1])))
        before = after
    world.stop()
    real_hits, simulated_hits, real_mean, simulated_mean = (tuple(column) for column in zip(*found, strict=True))
    figures = (real_hits, simulated_hits, real_mean, simulated_mean, tuple(paces))
    return Verdict(check, requests, setup.budget, str(wanted.arrival), *figures)


def _figures(
    run: Run, positions: Sequence[int], room: Room, check: Check, setup: Setup, cost: Cost
) -> tuple[float, float, float, float]:
    """(real hit rate, simulated, real mean latency, simulated)."""
    own = replace(run, outcomes=_moved(run.outcomes, positions))
    stream = replay(own, room, check.clients, timed=check.busy is not None)
    # Making the page cache cold takes a client some time between two requests: measuring's own, and no latency.
    pause = float(cost.about.get("cold_pause", 0.0)) if check.cache == "cold" else 0.0
    again = simulate(stream, setup, replace(cost, finish=cost.finish + pause))
    real, simulated = summarise(own.outcomes, room.placed), summarise(again.outcomes, room.placed)
    return real.hit_rate, simulated.hit_rate, real.mean, simulated.mean


def _setup(check: Check, room: Room) -> Setup:
    return Setup(int(room.nbytes * check.part), policy=check.policy, cache=check.cache)


def _where(wanted: Plan, room: Room) -> list[int]:
    """Position in the room of each model of the plan's stream."""
    known = {model.name: at for at, model in enumerate(room.placed)}
    return [known[model.name] for model in wanted.in_play()]


def _placed(wanted: Plan, room: Room) -> Any:
    stream = wanted.stream()
    where = _where(wanted, room)
    return replace(stream, models=tuple(room.placed[at] for at in where))


def _moved(outcomes: rows.Outcomes, positions: Sequence[int]) -> rows.Outcomes:
    """The same rows with positions in the room."""
    moved = outcomes.copy()
    moved["model"] = np.array(positions, dtype=np.int32)[outcomes["model"]]
    return moved
