"""What came of a fleet's stream: by place the bytes came from, by machine, by model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.workload import outcomes as rows
from trims.workload.models import sizes
from trims.workload.plan import Stream
from trims.workload.summary import Summary

TIERS: Final = ("host", "joined", "disk", "remote")
HOST, JOINED, DISK, REMOTE = range(4)


@dataclass(frozen=True, slots=True)
class Tier:
    """Requests whose model was there, their models' bytes, their latency in seconds; NaN where there are none."""

    name: str
    requests: int
    nbytes: int
    mean: float
    p99: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        times = {name: None if value != value else value for name, value in (("mean", self.mean), ("p99", self.p99))}
        return {"requests": self.requests, "nbytes": self.nbytes, **times}


@dataclass(frozen=True)
class Served:
    """What came of a stream.

    outcomes: OUTCOME[n], client being the machine. tier: uint8[n], index into TIERS. egress: bytes that left the
    remote store. replicas: int32[models], on how many machines each model was at once, at most. requests:
    int64[machines]. busy: float64[machines], seconds in which a request was under way. counters: sums over machines.
    """

    outcomes: rows.Outcomes
    summary: Summary
    tier: npt.NDArray[np.uint8]
    tiers: tuple[Tier, ...]
    egress: int
    replicas: npt.NDArray[np.int32]
    requests: npt.NDArray[np.int64]
    busy: npt.NDArray[np.float64]
    counters: dict[str, int]

    @property
    def machines_used(self) -> int:
        """Machines that had a request."""
        return int(np.count_nonzero(self.requests))

    @property
    def imbalance(self) -> float:
        """Requests of the busiest machine over the mean of all, idle ones included; 1 is perfect."""
        return _imbalance(self.requests)

    @property
    def busy_imbalance(self) -> float:
        """The same of the seconds in which they were busy."""
        return _imbalance(self.busy)

    @property
    def spread(self) -> tuple[float, int]:
        """(mean, most) replicas of the models that were on any machine."""
        there = self.replicas[self.replicas > 0]
        return (float(there.mean()), int(there.max())) if len(there) else (0.0, 0)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the rows."""
        mean, most = self.spread
        return {
            "summary": self.summary.to_dict(),
            "tiers": {tier.name: tier.to_dict() for tier in self.tiers},
            "egress": self.egress,
            "imbalance": self.imbalance,
            "busy_imbalance": self.busy_imbalance,
            "machines_used": self.machines_used,
            "replicas_mean": mean,
            "replicas_max": most,
            "counters": self.counters,
        }


def tiers(made: rows.Outcomes, stream: Stream, tier: npt.NDArray[np.uint8]) -> tuple[Tier, ...]:
    """One Tier for each of TIERS; tier: uint8[n] of each row."""
    nbytes = sizes(stream.models)[stream.model]
    found = []
    for number, name in enumerate(TIERS):
        seconds = rows.latency(made)[tier == number]
        mean, p99 = (float(seconds.mean()), float(np.percentile(seconds, 99))) if len(seconds) else (np.nan, np.nan)
        found.append(Tier(name, len(seconds), int(nbytes[tier == number].sum()), mean, p99))
    return tuple(found)


def _imbalance(values: npt.NDArray[Any]) -> float:
    mean = float(values.mean())
    return float(values.max()) / mean if mean else 1.0
