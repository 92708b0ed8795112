"""Cells of simulated runs: a policy on a stream, beside the native side, a machine with room for all, and the limits.

The other sides do not depend on the policy, so one `Case` works them out once, when they are asked for. The figures of
a cell are those of a real run (`summary`); what a simulation knows besides stands in its `Row`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from trims.workload import belady, simulator
from trims.workload.clientele import Watch
from trims.workload.cost import Cost
from trims.workload.models import ModelSpec
from trims.workload.outcomes import Outcomes
from trims.workload.plan import Stream
from trims.workload.simulator import Setup, simulate
from trims.workload.summary import Cell, Summary, ready_speedup, speedup, summarise


@dataclass(frozen=True, slots=True)
class Row:
    """One simulated run. counters: the machine's; moved: bytes by where they came from."""

    cell: Cell
    counters: Mapping[str, int]
    moved: Mapping[str, int]
    limits: belady.Limits | None
    outcomes: Outcomes

    @property
    def of_bound(self) -> float | None:
        """The hit rate as a part of the most that any policy could have; None where nothing could be a hit."""
        if self.limits is None or not self.limits.hit_rate > 0:
            return None
        return self.cell.trims.hit_rate / self.limits.hit_rate

    def to_dict(self) -> dict[str, Any]:
        """One row of `trims simulate`: plain JSON values."""
        cell, trims, limits = self.cell, self.cell.trims, self.limits
        return {
            "policy": cell.policy, "share": cell.share, "clients": cell.clients, "distribution": cell.distribution,
            "budget": cell.budget, "requests": cell.requests, "failed": trims.failed, "seconds": trims.seconds,
            "throughput": trims.throughput, "hit_rate": trims.hit_rate, "byte_hit_rate": trims.byte_hit_rate,
            "loads": self.counters["loads"], "refusals": self.counters["refusals"],
            "evictions": self.counters["evictions"], "bytes_moved": sum(self.moved.values()), "moved": dict(self.moved),
            "mean": trims.mean, "p50": trims.p50, "p99": trims.p99, "of_bound": self.of_bound,
            "bound": None if limits is None else limits.hit_rate,
            "byte_bound": None if limits is None else limits.byte_hit_rate,
            "offline": None if limits is None else limits.offline_hit_rate,
            "byte_offline": None if limits is None else limits.offline_byte_hit_rate,
            "speedup": cell.speedup, "batch_ratio": cell.batch_ratio, "penalty": cell.penalty,
        }  # fmt: skip


class Case:
    """One stream on one machine; the policy is what varies.

    share, distribution, seed, arrival, rate: how it was drawn. models: those that the share is of, by default the
    stream's.
    """

    def __init__(
        self,
        stream: Stream,
        setup: Setup,
        cost: Cost,
        *,
        share: float = 1.0,
        distribution: str = "recorded",
        seed: int = 0,
        arrival: str = "closed",
        rate: float | None = None,
        models: tuple[ModelSpec, ...] = (),
    ) -> None:
        self.models = models or stream.models
        self.stream, self.setup, self.cost, self.share = stream, setup, cost, share
        self._drawn = {"share": share, "distribution": distribution, "seed": seed, "arrival": arrival, "rate": rate}

    @cached_property
    def limits(self) -> belady.Limits:
        return belady.limits(self.stream, self.setup.budget)

    @cached_property
    def native(self) -> Summary:
        """The same stream with every request reading its own file."""
        run = simulate(self.stream, replace(self.setup, side="native"), self.cost)
        return summarise(run.outcomes, self.stream.models, "native")

    @cached_property
    def unlimited(self) -> Summary:
        """trims with room for every model."""
        roomy = replace(self.setup, budget=simulator.unlimited(self.stream), policy="lru")
        return summarise(simulate(self.stream, roomy, self.cost).outcomes, self.stream.models)

    def run(self, policy: str, watch: Watch | None = None, limits: bool = True, beside: bool = False) -> Row:
        """Simulate it. beside: with the other sides, and the speed-ups over them."""
        setup = replace(self.setup, policy=policy)
        run = simulate(self.stream, setup, self.cost, watch)
        trims = summarise(run.outcomes, self.stream.models)
        cell = Cell(
            clients=self.stream.clients, policy=policy, budget=setup.budget, requests=len(self.stream),
            cache=setup.cache, function="simulated", simulated=True, trims=trims, **self._drawn,  # type: ignore[arg-type]
        )  # fmt: skip
        if beside:
            cell = self._beside(cell, run.outcomes)
        return Row(cell, run.counters, run.moved, self.limits if limits else None, run.outcomes)

    def _beside(self, cell: Cell, outcomes: Outcomes) -> Cell:
        models, native, unlimited = self.stream.models, self.native, self.unlimited
        done, ready = simulator.alone(models, self.cost, self.setup.cache)
        return replace(
            cell,
            native=native,
            unlimited=unlimited,
            speedup=speedup(outcomes, models, done),
            ready_speedup=ready_speedup(outcomes, models, ready),
            batch_ratio=native.seconds / cell.trims.seconds if cell.trims.seconds else None,
            penalty=cell.trims.mean / unlimited.mean - 1 if unlimited.mean else None,
        )


def best(rows: Sequence[Row]) -> dict[str, Row]:
    """The rows with the highest hit rate, byte hit rate, and the lowest mean latency; of equals the first."""
    return {
        "hit_rate": max(rows, key=lambda row: row.cell.trims.hit_rate),
        "byte_hit_rate": max(rows, key=lambda row: row.cell.trims.byte_hit_rate),
        "mean": min(rows, key=lambda row: row.cell.trims.mean),
    }
