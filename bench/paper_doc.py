"""The figures of docs/paper.md, made from bench/results/paper.json; with --check, only fail when the two differ.

`trims bench paper -o bench/results/paper.json` measures them. Without --check the pictures are drawn, too.
"""

from __future__ import annotations

import sys

from bench.harness import RESULTS, ROOT, show
from trims.workload import claims, pictures, report_file, table3
from trims.workload.report import Report
from trims.workload.summary import Cell, sweet_spot

DOCUMENT = ROOT / "docs" / "paper.md"
PICTURES = ROOT / "docs" / "pictures" / "paper"
BEGIN, END = "<!-- figures: made by python -m bench.paper_doc -->\n", "<!-- end of figures -->"


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


def main() -> int:
    report = report_file.read(str(RESULTS / "paper.json"))
    text = DOCUMENT.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = f"{head}{BEGIN}{block(report)}{END}{tail}"
    if sys.argv[1:] == ["--check"]:
        if text != wanted:
            print("docs/paper.md and bench/results/paper.json differ: run python -m bench.paper_doc", file=sys.stderr)
        return int(text != wanted)
    DOCUMENT.write_text(wanted, encoding="utf-8")
    pictures.draw(report, str(PICTURES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
