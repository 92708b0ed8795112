"""The figures of a run: one Summary for each side, one Cell for each setting, and the map's sweet spot.

Only served requests enter latencies, rates and bytes; failed ones are counted. Percentiles interpolate linearly between
the two nearest order statistics (NumPy's "linear", definition 7 of Hyndman and Fan 1996). Speed-ups are ratios, so they
are averaged as the paper does, by their geometric mean: the only mean for which the inverse ratios give the inverse.
A figure of no served request is NaN in memory and null in JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from trims.errors import BadInput, UsageError
from trims.workload import outcomes as rows
from trims.workload.models import ModelSpec, sizes

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Summary:
    """What one side did with one stream. Times in seconds.

    requests: asked for, with the failed; seconds: first asked to last done; throughput: served a second.
    mean to max: of latency (asked to first result); ready_*: asked to weights usable.
    hit_rate: hits of served requests; byte_hit_rate: the same weighted by model bytes. joined: waited for a load that
    another request began; loads: requests that began one (natively: all). bytes_loaded: of loads.
    """

    requests: int
    failed: int
    seconds: float
    throughput: float
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float
    ready_mean: float
    ready_p50: float
    hit_rate: float
    byte_hit_rate: float
    hits: int
    joined: int
    loads: int
    bytes_loaded: int
    bytes_asked: int
    side: str = "trims"

    def to_dict(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Summary:
        """What `to_dict` wrote; raises BadInput when a figure is missing."""
        known: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in _known(cls, values).items()
        }
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Cell:
    """One setting and its figures: one square of the map.

    native: the same stream, natively, with the same clients; unlimited: trims with room for all.
    speedup: geometric mean over requests of (native latency of that model alone) / (this request's latency), the
    paper's Figure 11; ready_speedup: the same until the weights are usable; speedup_interval: its 95 % bootstrap.
    batch_ratio: native.seconds / trims.seconds. penalty: trims.mean / unlimited.mean - 1.
    """

    share: float
    clients: int
    distribution: str
    policy: str
    budget: int
    requests: int
    seed: int
    rate: float | None
    cache: str
    function: str
    simulated: bool
    trims: Summary
    native: Summary | None = None
    unlimited: Summary | None = None
    speedup: float | None = None
    ready_speedup: float | None = None
    batch_ratio: float | None = None
    penalty: float | None = None
    speedup_interval: tuple[float, float] | None = None
    arrival: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cell:
        """What `to_dict` wrote, or an older version of it; raises BadInput when a needed field is missing."""
        known = _known(cls, values)
        for side in ("trims", "native", "unlimited"):
            if known.get(side) is not None:
                known[side] = Summary.from_dict(known[side])
        if known.get("speedup_interval") is not None:
            low, high = known["speedup_interval"]
            known["speedup_interval"] = (float(low), float(high))
        return cls(**known)


def summarise(outcomes: rows.Outcomes, models: Sequence[ModelSpec], side: str = "trims") -> Summary:
    """The figures of a run's rows (OUTCOME[n]) over `models` (the stream's)."""
    served = outcomes[rows.ok(outcomes)]
    count = len(served)
    how = np.bincount(served["how"], minlength=len(rows.HOW))
    nbytes = sizes(models)[served["model"]]
    began_load = (served["how"] == rows.LOADED) | (served["how"] == rows.NATIVE)
    asked, from_hits = int(nbytes.sum()), int(nbytes[served["how"] == rows.HIT].sum())
    seconds = float(outcomes["done"].max() - outcomes["asked"].min()) if len(outcomes) else 0.0
    latency, ready = rows.latency(served), rows.ready(served)
    p50, p90, p95, p99, most = percentiles(latency, (50, 90, 95, 99, 100))
    return Summary(
        requests=len(outcomes),
        failed=len(outcomes) - count,
        seconds=seconds,
        throughput=count / seconds if seconds else math.nan,
        mean=float(latency.mean()) if count else math.nan,
        p50=p50,
        p90=p90,
        p95=p95,
        p99=p99,
        max=most,
        ready_mean=float(ready.mean()) if count else math.nan,
        ready_p50=percentiles(ready, (50,))[0],
        hit_rate=int(how[rows.HIT]) / count if count else math.nan,
        byte_hit_rate=from_hits / asked if asked else math.nan,
        hits=int(how[rows.HIT]),
        joined=int(how[rows.JOINED]),
        loads=int(began_load.sum()),
        bytes_loaded=int(nbytes[began_load].sum()),
        bytes_asked=asked,
        side=side,
    )


def percentiles(x: Floats, percents: Sequence[float]) -> list[float]:
    """Percentiles of x by linear interpolation; NaN for each when x is empty."""
    if not len(x):
        return [math.nan] * len(percents)
    return [float(value) for value in np.percentile(x, percents, method="linear")]


def geometric_mean(x: npt.ArrayLike) -> float:
    """exp of the mean of logarithms; raises UsageError when x is empty or holds a value that is not positive."""
    values = np.asarray(x, dtype=np.float64)
    if not values.size:
        raise UsageError("no geometric mean of nothing")
    if not (np.isfinite(values) & (values > 0)).all():
        raise UsageError("no geometric mean", "a value is not a positive number")
    return float(np.exp(np.log(values).mean()))


def ratios(
    outcomes: rows.Outcomes, models: Sequence[ModelSpec], alone: Mapping[str, float], until: str = "done"
) -> Floats:
    """Of each served request, (seconds of its model alone) / (its own seconds from asked to `until`), float64[served].

    Raises UsageError when a model that was asked for has no time alone.
    """
    served = outcomes[rows.ok(outcomes)]
    times = np.full(len(models), math.nan)
    for position in np.unique(served["model"]):
        name = models[position].name
        if name not in alone:
            raise UsageError(f"no time of {name!r} alone", "a speed-up compares each request with its model alone")
        times[position] = alone[name]
    with np.errstate(divide="ignore"):  # a request of no time at all is the mean's to refuse
        result: Floats = times[served["model"]] / (served[until] - served["asked"])
    return result


def speedup(outcomes: rows.Outcomes, models: Sequence[ModelSpec], alone: Mapping[str, float]) -> float | None:
    """Geometric mean of `ratios` until the first result; None when no request was served."""
    found = ratios(outcomes, models, alone)
    return geometric_mean(found) if len(found) else None


def ready_speedup(outcomes: rows.Outcomes, models: Sequence[ModelSpec], alone: Mapping[str, float]) -> float | None:
    """Geometric mean of `ratios` until the weights are usable; None when no request was served."""
    found = ratios(outcomes, models, alone, until="ready")
    return geometric_mean(found) if len(found) else None


def interval(x: npt.ArrayLike, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Bootstrap percentile interval of the geometric mean of x (Efron 1979), seeded. Raises as `geometric_mean`."""
    geometric_mean(x)
    logs = np.log(np.asarray(x, dtype=np.float64))
    rng = np.random.Generator(np.random.PCG64(seed))
    means = np.array([logs[(rng.random(len(logs)) * len(logs)).astype(np.int64)].mean() for _ in range(resamples)])
    tail = 50 * (1 - confidence)
    low, high = np.exp(np.percentile(means, (tail, 100 - tail)))
    return float(low), float(high)


def sweet_spot(cells: Iterable[Cell]) -> dict[int, float]:
    """clients -> largest share up to which every cell is no slower than 1x; 0.0 when not even the smallest is.

    A cell's figure is its batch_ratio, else its speedup; one with neither ends the region. Cells should differ in share
    and clients only.
    """
    found: dict[int, float] = {}
    ended: set[int] = set()
    for cell in sorted(cells, key=lambda cell: (cell.clients, cell.share)):
        figure = cell.batch_ratio if cell.batch_ratio is not None else cell.speedup
        found.setdefault(cell.clients, 0.0)
        if figure is None or not figure >= 1:
            ended.add(cell.clients)
        if cell.clients not in ended:
            found[cell.clients] = cell.share
    return found


def ecdf(x: npt.ArrayLike, points: int = 200) -> tuple[Floats, Floats]:
    """(values, fractions), each float64[min(points, len(x))]: a cumulative distribution thinned for drawing.

    fractions[i] of x are at most values[i]; the last is (max, 1). Empty for empty x.
    """
    ordered = np.sort(np.asarray(x, dtype=np.float64))
    n, count = len(ordered), min(points, len(ordered))
    ranks = -(-np.arange(1, count + 1) * n // max(1, count))  # rounded up: from about n/count to n, in even steps
    return ordered[ranks - 1], ranks / max(1, n)


def _plain(value: Any) -> Any:
    if isinstance(value, Summary):
        return value.to_dict()
    if isinstance(value, tuple):
        return list(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _known(cls: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `cls` that `values` holds; one that is missing may be so only where it has a default."""
    found = {}
    for field in fields(cls):
        if field.name in values:
            found[field.name] = values[field.name]
        elif field.default is MISSING:
            raise BadInput("cannot read the figures of a run", f"{field.name!r} is missing")
    return found
