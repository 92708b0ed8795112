"""What `bench paper` prints: the machine, the claims with their verdicts, the models alone, the maps, how cold it was.

People get these as text that wraps to their terminal; programs get the claims, as items, in every other form.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trims import units
from trims.workload import claims, table3
from trims.workload.report import Report
from trims.workload.summary import Cell
from trims_cli import heatmap, output
from trims_cli.output import Column
from trims_cli.settings import Settings

CLAIMS = (
    Column("CLAIM", "key"), Column("PAPER", "paper"), Column("VALUE", "value"), Column("VERDICT", "verdict"),
    Column("HERE", "here", usual=False), Column("HOW", "how", usual=False),
)  # fmt: skip
_ALONE = (
    "FAMILY", "MODELS", "NATIVE-COLD", "NATIVE-WARM", "LOADED", "RESIDENT",
    "COLD/RESIDENT", "WARM/RESIDENT", "COLD/LOADED",
)  # fmt: skip
_GAINS = (("native_cold", "hit"), ("native_warm", "hit"), ("native_cold", "load"))
_COLOURS = {claims.MET: "green", claims.NOT_MET: "red", claims.CANNOT: "yellow"}
_WIDTH = 110  # where the output is no terminal


def show(settings: Settings, report: Report, path: str, drawn: Sequence[str]) -> None:
    """Print the report as the settings ask for it. path: where it was written; drawn: the pictures' files."""
    found = claims.claims(report)
    if settings.form != "table" or settings.quiet:
        items = [claim.to_dict() for claim in found]
        output.emit(settings, "bench-paper", items, CLAIMS, "key")
        return
    colour = settings.config["ui.color"]
    console = _console(colour)
    for part in (_machine(report), "", _table(found), "", claims.HOST, ""):
        console.print(part)
    output.write(_alone(report) + "\n")
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    for title, value in _MAPS:
        if any(value(cell) is not None for cell in report.of()):
            heatmap.show(heatmap.lines(report.of(), value, title, unicode), colour)
            output.write("\n")
    for line in _remarks(report, path, drawn):
        output.write(line + "\n")


def progress_of(report: Report) -> str:
    """How far it got, in words."""
    return f"{len(report.alone)} models alone, {len(report.cells)} cells"


def _speedup(cell: Cell) -> float | None:
    return cell.speedup


def _batch(cell: Cell) -> float | None:
    return cell.batch_ratio


_MAPS: tuple[tuple[str, Callable[[Cell], float | None]], ...] = (
    ("Speed-up of a request over its model natively alone, geometric mean (Figure 11)", _speedup),
    ("Batch time, natively / with trims", _batch),
)


def _console(colour: str) -> Console:
    console = Console(
        file=sys.stdout,
        force_terminal=True if colour == "always" else None,
        no_color=True if colour == "never" else None,
        highlight=False,
        markup=False,
    )
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def _machine(report: Report) -> str:
    facts, about = report.machine, report.configuration
    total = sum(model.nbytes for model in report.small)
    return (
        f"{facts['cpu']}, {facts['cores']} cores, {units.format_size(facts['memory'])}; {len(report.small)} small"
        f" models of {units.format_size(total)} at scale {about['scale']:g}, function {about['function']},"
        f" page cache {about['cache']}" + ("; partial" if report.partial else "")
    )


def _table(found: Sequence[claims.Claim]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, ratio in (("THE PAPER'S CLAIM", 5), ("THERE", 2), ("HERE", 5)):
        table.add_column(name, ratio=ratio, overflow="fold")
    table.add_column("VERDICT", no_wrap=False, max_width=14)
    for claim in found:
        here = Text(claim.here)
        if claim.caveat:
            here.append(f" ({claim.caveat})", style="dim")
        verdict = Text(claim.verdict, style=_COLOURS[claim.verdict])
        table.add_row(claim.stated.claim, claim.stated.paper, here, verdict)
    return table


def _alone(report: Report) -> str:
    """Table 3 in short: geometric means over the models of a family, to the first result."""
    body = [
        [
            row.family, str(row.models),
            *(_seconds(t) for t in (row.native_cold, row.native_warm, row.load, row.hit)),
            *(_ratio(row.gain(*pair)) for pair in _GAINS),
        ]
        for row in table3.rows(report)
    ]  # fmt: skip
    return output.table([list(_ALONE), *body], [name != "FAMILY" for name in _ALONE])


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{1000 * value:.1f}ms"


def _ratio(value: float | None) -> str:
    return "-" if value is None else heatmap.number(value)


def _remarks(report: Report, path: str, drawn: Sequence[str]) -> list[str]:
    made = []
    cold = report.coldness
    if cold is not None:
        made.append(
            f"cold: before each of {cold.looks} native loads alone {cold.mean:.1%} of the file was in the page cache on"
            f" average, {cold.most:.1%} at most" + ("" if cold.proven else ": not all of them were cold")
        )
    failed = sum(cell.trims.failed + (cell.native.failed if cell.native else 0) for cell in report.cells)
    if failed:
        made.append(f"{failed} requests failed; they enter no figure")
    made.append(f"report: {path}")
    if drawn:
        made.append(f"pictures: {len(drawn)} in {os.path.dirname(drawn[0])}")
    return made
