"""The README's table of figures, made from bench/results; with --check, only fail when the two differ.

A figure that stands in the README is then always one that was measured, and kept, by scripts/bench.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from bench.harness import RESULTS, ROOT, show
from bench.sections import fill

README = ROOT / "README.md"
ORDER = (
    "attach",
    "server",
    "ort",
    "start",
    "torch",
    "exec",
    "pipeline",
    "memory",
    "warm",
    "import",
    "cli",
    "catalog",
    "index",
    "killed",
)


def table() -> str:
    """The section: the machine, then a line for every row of every benchmark."""
    results = [json.loads((RESULTS / f"{name}.json").read_text()) for name in ORDER]
    machine, limits = results[0]["machine"], results[0]["limits"]
    limit = {name: show(limits[name], "B/s") for name in ("memcpy", "fresh_memory", "disk_read")}
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores, {show(machine['memory'], 'B')}, Linux {machine['kernel']}."
        f" Its limits: memcpy {limit['memcpy']}, fresh memory {limit['fresh_memory']}, disk {limit['disk_read']},"
        f" bare Python {show(limits['python_start'], 's')}.",
        "",
        "| What | trims | Beside it | Target |",
        "|---|---|---|---|",
    ]
    for result in results:
        lines.append(f"| **{result['title']}** | | | |")
        lines += [line(row) for row in result["rows"]]
    return "\n".join(lines) + "\n"


def line(row: dict[str, Any]) -> str:
    """One row as Markdown. Ratios are of the other side to trims."""
    ours = row["trims"]
    beside = []
    for name, figure in row["beside"].items():
        ratio = row["ratios"].get(name)
        times = f" ({show(ratio, '')}x)" if ratio else ""
        beside.append(f"{name} {show(figure['p50'], figure['unit'])}{times}")
    verdict = {None: "", True: ": met", False: ": not met"}[row["met"]]
    own = show(ours["p50"], ours["unit"])
    return f"| {row['what']} | {own} | {'<br>'.join(beside)} | {row['target']}{verdict} |"


def main() -> int:
    text = README.read_text(encoding="utf-8")
    wanted = fill(text, "bench.figures", {"figures": table}, README.name)
    if sys.argv[1:] == ["--check"]:
        if text != wanted:
            print("README.md and bench/results differ: run python -m bench.figures", file=sys.stderr)
        return int(text != wanted)
    README.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
