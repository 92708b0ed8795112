"""The tables of figures, made from bench/results: all of them in docs/figures.md, the main ones in the README.

With --check, only fail when they differ. A figure that stands there is then always one that was measured, and kept, by
scripts/bench.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from bench.harness import RESULTS, ROOT, show
from bench.sections import fill

ORDER = (
    "attach", "server", "ort", "start", "torch", "exec", "pipeline", "memory", "warm", "import", "cli", "catalog",
    "index", "killed",
)  # fmt: skip
MAIN = {
    "attach": ("1024 MiB: first in the process", "1024 MiB: next on the connection"),
    "start": (
        "magika: open to first result", "resnet50: open to first result", "vit6: open to first result",
        "6 transformer blocks, 170 MB: open to first result",
    ),
    "exec": ("python -c pass, redirected (processor time)",),
    "memory": ("resnet50: same bits", "vit6: same bits", "vit6: prepacking off"),
    "warm": ("cold page cache", "warm page cache, spare pages"),
    "cli": ("trims ps, 100,000 refs",),
    "killed": ("SIGKILL to lease gone",),
}  # fmt: skip
"""The rows of the README, by benchmark."""
_COLUMNS = ("| What | trims | Beside it | Target |", "|---|---|---|---|")


def everything() -> str:
    """A line for every row of every benchmark."""
    return _table(ORDER, lambda name, row: True)


def chief() -> str:
    """A line for each of the main rows."""
    return _table(MAIN, lambda name, row: row["what"] in MAIN[name])


def _table(names: Iterable[str], wanted: Callable[[str, dict[str, Any]], bool]) -> str:
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in names}
    lines = [_machine(next(iter(results.values()))), "", *_COLUMNS]
    for name, result in results.items():
        lines.append(f"| **{result['title']}** | | | |")
        lines += [line(row) for row in result["rows"] if wanted(name, row)]
    return "\n".join(lines) + "\n"


def _machine(result: dict[str, Any]) -> str:
    machine, limits = result["machine"], result["limits"]
    limit = {name: show(limits[name], "B/s") for name in ("memcpy", "fresh_memory", "disk_read")}
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {show(machine['memory'], 'B')}, Linux {machine['kernel']}."
        f" Its limits: memcpy {limit['memcpy']}, fresh memory {limit['fresh_memory']}, disk {limit['disk_read']},"
        f" bare Python {show(limits['python_start'], 's')}."
    )


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
    checking, different = sys.argv[1:] == ["--check"], []
    for name, made in (("README.md", chief), ("docs/figures.md", everything)):
        text = (ROOT / name).read_text(encoding="utf-8")
        wanted = fill(text, "bench.figures", {"figures": made}, name)
        if text != wanted:
            different.append(name)
            if not checking:
                (ROOT / name).write_text(wanted, encoding="utf-8")
    if checking and different:
        print(f"{' and '.join(different)} and bench/results differ: run python -m bench.figures", file=sys.stderr)
    return int(checking and bool(different))


if __name__ == "__main__":
    sys.exit(main())
