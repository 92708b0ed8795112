"""Reports whose figures are known, made without running anything."""

from __future__ import annotations

from dataclasses import replace

from trims.workload.models import ModelSpec
from trims.workload.report import Alone, Curve, Report, Times
from trims.workload.setting import Coldness
from trims.workload.summary import Cell, Summary

SHARES, CLIENTS = (0.1, 0.4, 0.7, 1.0), (1, 4, 10)


def summary(
    seconds: float = 10.0, mean: float = 0.1, requests: int = 100, failed: int = 0, **others: object
) -> Summary:
    figures: dict[str, object] = {
        "requests": requests, "failed": failed, "seconds": seconds, "throughput": requests / seconds, "mean": mean,
        "p50": mean, "p90": mean, "p95": mean, "p99": 2 * mean, "max": 3 * mean, "ready_mean": mean / 2,
        "ready_p50": mean / 2, "hit_rate": 0.7, "byte_hit_rate": 0.6, "hits": 70, "joined": 10, "loads": 20,
        "bytes_loaded": 20 << 20, "bytes_asked": 100 << 20,
    }  # fmt: skip
    return Summary(**{**figures, **others})  # type: ignore[arg-type]


def cell(share: float = 1.0, clients: int = 10, ratio: float | None = 4.0, **others: object) -> Cell:
    """A cell whose native batch took `ratio` times as long."""
    made = Cell(
        share, clients, "pareto:alpha=1,xm=1", "lru", 50 << 20, 100, 0, None, "cold", "weights", False, summary(),
        native=None if ratio is None else summary(10.0 * ratio, 0.1 * ratio, side="native"),
        unlimited=summary(9.0, 0.09), speedup=ratio, ready_speedup=ratio, batch_ratio=ratio, penalty=0.1,
    )  # fmt: skip
    return replace(made, **others)  # type: ignore[arg-type]


def grid() -> tuple[Cell, ...]:
    """A whole map: with more models and clients the gain falls from 8x below 1x."""
    return tuple(cell(s, c, round(8.0 / (1 + 8 * s * c / 10), 3)) for c in CLIENTS for s in SHARES)


def report(**changes: object) -> Report:
    """Two small models and a large one, a whole map, and all that goes with it."""
    models = (
        ModelSpec("squeeze", 40 << 20, 8), ModelSpec("vgg", 60 << 20, 16),
        ModelSpec("alex-large", 1 << 30, 16, family="large"),
    )  # fmt: skip
    alone = (
        Alone("squeeze", Times(0.2, 0.19, 3), Times(0.4, 0.39, 3), Times(0.1, 0.02, 3), Times(0.3, 0.29, 3)),
        Alone("vgg", Times(0.4, 0.35, 3), Times(3.0, 2.8, 3), Times(0.1, 0.01, 3), Times(0.5, 0.45, 3)),
        Alone("alex-large", Times(2.0, 1.9, 2), Times(42.0, 41.0, 2), Times(0.2, 0.01, 2), Times(1.5, 1.4, 2)),
    )
    curves = (
        Curve("trims", 1.0, 10, (0.1, 0.2, 0.4), (0.5, 0.9, 1.0)), Curve("native", 1.0, 10, (0.4, 0.8), (0.6, 1.0)),
    )  # fmt: skip
    made = Report(
        "2026-01-02T03:04:05Z",
        {"cpu": "a processor", "cores": 2, "memory": 24 << 30, "kernel": "6.1", "disk": "ext4"},
        {"set": "quick", "scale": 1.0, "function": "weights", "cache": "cold"},
        models, alone, grid(), curves, Coldness("cold", 0.0, 0.002, 0.01, 12), partial=False,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]
