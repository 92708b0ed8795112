"""The cells of a report as a table, and as a map where there are several."""

from __future__ import annotations

import math

from trims.workload.report import Report
from trims.workload.summary import Cell
from trims_cli import output
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

CELLS = (
    Column("SHARE", "share"), Column("CLIENTS", "clients", "int"), Column("REQUESTS", "requests", "int"),
    Column("SPEEDUP", "_speedup"), Column("BATCH", "_batch"), Column("PENALTY", "_penalty"),
    Column("HIT", "_hit"), Column("P50", "_p50"), Column("P99", "_p99"),
    Column("NATIVE-P50", "_native_p50"), Column("NATIVE-P99", "_native_p99"),
    Column("FAILED", "_failed", "int"),
    Column("DISTRIBUTION", "distribution", "text", False), Column("POLICY", "policy", "text", False),
    Column("BUDGET", "budget", "size", False), Column("ARRIVAL", "arrival", "text", False),
)  # fmt: skip


def show(settings: Settings, kept: Report) -> None:
    """Print the cells, and for a person the map."""
    output.emit(settings, "bench-workload", [_item(cell) for cell in kept.cells], CELLS, None)
    several = len({cell.share for cell in kept.cells}) > 1 or len({cell.clients for cell in kept.cells}) > 1
    compared = any(cell.speedup is not None for cell in kept.cells)
    if settings.form == "table" and not settings.quiet and several and compared:
        from trims_cli import heatmap

        made = heatmap.lines(kept.of(), lambda cell: cell.speedup, "speed-up over native, geometric mean")
        heatmap.show(made, settings.config["ui.color"])


def _item(cell: Cell) -> Item:
    native = cell.native
    return {
        **cell.to_dict(),
        "_speedup": _times(cell.speedup),
        "_batch": _times(cell.batch_ratio),
        "_penalty": _figure(cell.penalty, "+.0%"),
        "_hit": _figure(cell.trims.hit_rate, ".0%"),
        "_p50": _milliseconds(cell.trims.p50),
        "_p99": _milliseconds(cell.trims.p99),
        "_native_p50": _milliseconds(native.p50 if native else None),
        "_native_p99": _milliseconds(native.p99 if native else None),
        "_failed": cell.trims.failed + (0 if native is None else native.failed),
    }


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None or math.isnan(seconds) else f"{seconds * 1e3:.1f}ms"
