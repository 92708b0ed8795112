"""What docs/paper.md, docs/simulator.md and the README say of kept results; with --check, only fail when they differ.

`trims bench paper -o bench/results/paper.json` and `trims bench validate -o bench/results/validation.json` measure
them. Without --check the pictures are drawn, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from bench.harness import RESULTS, ROOT, show
from bench.sections import fill
from trims.workload import claims, pictures, report_file, table3
from trims.workload.report import Report
from trims.workload.summary import Cell, sweet_spot

PICTURES = ROOT / "docs" / "pictures" / "paper"
PAPER, VALIDATION = RESULTS / "paper.json", RESULTS / "validation.json"


def block(report: Report) -> str:
    """The section: what it ran on, the claims, the models alone, the maps, the pictures."""
    parts = [_machine(report), claims.to_markdown(claims.claims(report)), _models(report)]
    parts += [_map(report, "Speed-up of a request over its model natively alone (Figure 11)", "speedup")]
    parts += [_map(report, "Batch time, natively / with trims", "batch_ratio")]
    parts += ["\n".join(f"![{name}](pictures/paper/{name}.svg)" for name in pictures.names(report)) + "\n"]
    return "\n".join(parts)


def _machine(report: Report) -> str:
    facts, about = report.machine, report.configuration
    total = sum(model.nbytes for model in report.small)
    lines = [
        f"`trims bench paper`, set {about['set']}, on {facts['cpu']}, {facts['cores']} cores, "
        f"{show(facts['memory'], 'B')}, {facts['kernel']}, {facts['disk']}; {report.made[:10]}. "
        f"{len(report.small)} small models of {show(total, 'B')} (scale {about['scale']:g}), function "
        f"`{about['function']}`, native page cache {about['cache']}, {about['requests']} requests a cell."
    ]
    if report.coldness is not None:
        cold = report.coldness
        lines.append(
            f"Before each of {cold.looks} native loads alone {cold.mean:.2%} of the model's file was in the page cache "
            f"on average, {cold.most:.2%} at most."
        )
    return "\n".join(lines) + "\n"


def _models(report: Report) -> str:
    lines = [
        "| Models alone, geometric means | native, cold | native, warm | trims, loaded | trims, resident | "
        "cold / resident | warm / resident | cold / loaded |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table3.rows(report):
        times = (row.native_cold, row.native_warm, row.load, row.hit)
        gains = (
            row.gain("native_cold", "hit"), row.gain("native_warm", "hit"), row.gain("native_cold", "load"),
        )  # fmt: skip
        cells = [
            *("-" if t is None else show(t, "s") for t in times),
            *("-" if g is None else f"{g:.2g}x" for g in gains),
        ]
        lines.append(f"| {row.models} {row.family} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _map(report: Report, title: str, name: str) -> str:
    cells = {(c.share, c.clients): c for c in report.of()}
    shares, clients = sorted({s for s, _ in cells}), sorted({c for _, c in cells}, reverse=True)
    spot = sweet_spot(cells.values())
    lines = [f"| {title} | " + " | ".join(f"{share:.0%}" for share in shares) + " |", "|---" * (len(shares) + 1) + "|"]
    for count in clients:
        row = [_square(cells.get((share, count)), name, share <= spot.get(count, 0.0)) for share in shares]
        lines.append(f"| {count} client{'s' if count > 1 else ''} | {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def _square(cell: Cell | None, name: str, sweet: bool) -> str:
    value = None if cell is None else getattr(cell, name)
    text = "-" if value is None else f"{value:.2f}x"
    return f"**{text}**" if sweet and value is not None else text


def validation(kept: dict[str, Any]) -> str:
    """The table of simulated runs beside real ones."""
    facts = kept["machine"]
    first = kept["items"][0]
    lines = [
        f"On {facts['cpu']}, {facts['cores']} cores, {facts['kernel']}: {first['requests']:,} requests a run, "
        f"{len(first['real_mean'])} real runs a check, models at {kept['scale']:g} of their size.\n",
        "| Check | Hit rate, real | simulated | points | Mean latency, real | simulated | off | pace | agree |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for item in kept["items"]:
        real, own = item["real_mean"], mean(item["simulated_mean"])
        lines.append(
            f"| {item['name']} | {mean(item['real_hit_rate']):.1%} | {mean(item['simulated_hit_rate']):.1%} | "
            f"{100 * item['points']:+.1f} | "
            f"{show(mean(real), 's')} ({show(min(real), 's')} to {show(max(real), 's')}) | "
            f"{show(own, 's')} | {item['deviation']:+.1%} | {mean(item['paces']):.2f}x | "
            f"hits {_yes(item['hits_agree'])}, latency {_yes(item['mean_agrees'])} |"
        )
    return "\n".join(lines) + "\n"


def _yes(agrees: bool) -> str:
    return "yes" if agrees else "**no**"


def documents(report: Report) -> Iterator[tuple[Path, str, str]]:
    """(document, name of its section, what has to stand there)."""
    yield ROOT / "docs" / "paper.md", "figures", block(report)
    yield ROOT / "README.md", "paper", _machine(report) + "\n" + claims.to_markdown(claims.claims(report))
    yield ROOT / "docs" / "simulator.md", "validation", validation(json.loads(VALIDATION.read_text(encoding="utf-8")))


def main() -> int:
    report, stale = report_file.read(str(PAPER)), []
    for path, name, made in documents(report):
        text = path.read_text(encoding="utf-8")
        wanted = fill(text, "bench.paper_doc", {name: lambda made=made: made}, path.name)
        if text != wanted:
            stale.append(path.name)
            if sys.argv[1:] != ["--check"]:
                path.write_text(wanted, encoding="utf-8")
    if sys.argv[1:] == ["--check"]:
        if stale:
            print(f"{', '.join(stale)} and bench/results differ: run python -m bench.paper_doc", file=sys.stderr)
        return int(bool(stale))
    pictures.draw(report, str(PICTURES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
