"""What `trims simulate` does: reads what was asked for, simulates cell by cell, prints and writes what came of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from trims.workload import cost, report, report_file
from trims.workload.outcomes import latency, ok
from trims.workload.study import Case, Row
from trims.workload.summary import ecdf
from trims_cli import output, times
from trims_cli.counting import Count
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.simulating_input import MachineAsked, Workload, read_cases, read_cost, read_policies

COLUMNS = (
    Column("POLICY", "policy"), Column("SHARE", "_share"), Column("CLIENTS", "clients", "int"),
    Column("HITS", "_hits"), Column("BYTE_HITS", "_byte_hits"), Column("MOVED", "bytes_moved", "size"),
    Column("MEAN", "_mean"), Column("P99", "_p99"), Column("EVICTIONS", "evictions", "int"),
    Column("OF_BOUND", "_of_bound"), Column("SPEEDUP", "_speedup"), Column("SECONDS", "seconds", "took", usual=False),
    Column("REFUSALS", "refusals", "int", usual=False), Column("DISTRIBUTION", "distribution", usual=False),
    Column("BUDGET", "budget", "size", usual=False), Column("PENALTY", "_penalty", usual=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Files:
    """Where to write."""

    output: str | None
    csv: str | None
    picture: str | None


def run(settings: Settings, workload: Workload, machine: MachineAsked, files: Files) -> int:
    """Simulate every cell; an interrupted run writes what it has."""
    if files.picture is not None:
        from trims.workload import pictures

        pictures.check()
    prices = read_cost(machine.cost)
    policies = read_policies(machine.policy)
    cases = list(read_cases(workload, machine, prices))
    kept = report.Report(
        times.rfc3339(time.time()), _machine(prices), _configuration(workload, machine), cases[0].models
    )
    beside = machine.native or files.picture is not None
    rows: list[Row] = []
    try:
        with Count(settings, "simulating", sum(len(case.stream) for case in cases) * len(policies)) as count:
            for case in cases:
                for policy in policies:
                    count.part(f"simulating {policy}, {case.stream.clients} at once")
                    row = case.run(policy, count, beside=beside)
                    count(len(case.stream))
                    rows.append(row)
                    kept = kept.with_cell(row.cell, report_curves(row) if len(cases) == 1 else ())
    finally:
        whole = len(rows) == len(cases) * len(policies)
        if rows:
            write(files, kept if not whole else replace(kept, partial=False))
    show(settings, cases, rows, prices)
    return 0


def report_curves(row: Row) -> list[report.Curve]:
    """The distribution of latencies of one cell."""
    seconds, fractions = ecdf(latency(row.outcomes[ok(row.outcomes)]))
    cell = row.cell
    return [report.Curve("trims", cell.share, cell.clients, tuple(seconds.tolist()), tuple(fractions.tolist()))]


def write(files: Files, kept: report.Report) -> None:
    """The files that were asked for, each whole or not at all."""
    if files.output is not None:
        report_file.write(files.output, report.to_json(kept))
    if files.csv is not None:
        report_file.write(files.csv, report.to_csv(kept))
    if files.picture is not None:
        from trims.workload import pictures

        pictures.draw(kept, files.picture)


# ---- what came of it


def _machine(prices: cost.Cost) -> dict[str, Any]:
    return {**prices.about, "cores": prices.cores, "simulated": True}


def _configuration(workload: Workload, machine: MachineAsked) -> dict[str, Any]:
    return {"simulated": True, **asdict(workload), **asdict(machine)}


def show(settings: Settings, cases: list[Case], rows: list[Row], prices: cost.Cost) -> None:
    """The table, and for people what it rests on."""
    items = [_item(row, prices.measured) for row in rows]
    output.emit(settings, "simulate", items, COLUMNS, "policy")
    for case in cases if settings.form == "table" and not settings.quiet else ():
        limits, where = case.limits, ""
        if len(cases) > 1:
            where = f" with {case.share:.0%} of the models and {case.stream.clients} clients"
        output.tell(
            settings,
            lambda limits=limits, where=where: (  # type: ignore[misc]
                f"no policy has more than {limits.hit_rate:.1%} hits, {limits.byte_hit_rate:.1%} by bytes{where}; "
                f"one that knew the future would have {limits.offline_hit_rate:.1%}, {limits.offline_byte_hit_rate:.1%}"
            ),
        )
    remark(settings, prices)


def remark(settings: Settings, prices: cost.Cost) -> None:
    """What times are worth; programs read it as `measured`."""
    if not prices.measured and settings.form == "table" and not settings.quiet:
        output.note("trims: times rest on assumed costs; `trims bench calibrate` measures those of this machine")


def _item(row: Row, measured: bool) -> Item:
    item: Item = {**row.to_dict(), "measured": measured}
    item |= {f"_{name}": seconds(item[name]) for name in ("mean", "p99")}
    percents = {"_share": "share", "_hits": "hit_rate", "_byte_hits": "byte_hit_rate", "_of_bound": "of_bound",
                "_penalty": "penalty"}  # fmt: skip
    item |= {to: percent(item[name]) for to, name in percents.items()}
    return {**item, "_speedup": None if item["speedup"] is None else f"{item['speedup']:.2f}x"}


def percent(value: float | None) -> str | None:
    return None if value is None or value != value else f"{100 * value:.1f}%"


def seconds(value: float | None) -> str | None:
    """A time in the unit that suits it: 12.3ms, 1.24s."""
    if value is None or value != value:
        return None
    return f"{value * 1e3:.3g}ms" if value < 1 else f"{value:.4g}s"
