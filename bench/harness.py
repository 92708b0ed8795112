"""How everything here is measured: both sides in one run, taking turns, so that the machine's moods hit both.

A measurement is a Row: a figure of trims, figures beside it, and the target. Figures carry p50, p99 and how many
samples they are of. Rows of one benchmark are printed as a table and kept as JSON with the machine they came from.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"

Side = Callable[[], object]
"""Does one thing; what it returns is the seconds it took if it is a float, because then it measured them itself."""


@dataclass(frozen=True)
class Figure:
    """One number and its spread. unit: "s", "1/s", "B", "B/s" or "" for plain numbers."""

    p50: float
    p99: float
    n: int
    unit: str = "s"

    @classmethod
    def of(cls, samples: Iterable[float], unit: str = "s") -> Figure:
        ordered = sorted(samples)
        last = len(ordered) - 1
        return cls(ordered[(last + 1) // 2], ordered[round(0.99 * last)], len(ordered), unit)

    @classmethod
    def single(cls, value: float, unit: str = "s") -> Figure:
        return cls(value, value, 1, unit)

    def __str__(self) -> str:
        spread = f" (p99 {show(self.p99, self.unit)})" if self.n > 2 else ""
        return show(self.p50, self.unit) + spread


@dataclass(frozen=True)
class Row:
    """One line: what was measured, with trims and beside it.

    target: in words. met: whether it was, or None where there is no target. comparable: whether the figures beside it
    are of the same thing; parts of one thing are not.
    """

    what: str
    trims: Figure
    beside: Mapping[str, Figure] = field(default_factory=dict)
    target: str = ""
    met: bool | None = None
    comparable: bool = True


def interleave(sides: Mapping[str, Side], rounds: int, warm: int = 1, seed: int = 0) -> dict[str, Figure]:
    """Call every side once a round, in an order of its own each round; the first `warm` rounds are not counted."""
    order = list(sides)
    shuffled = random.Random(seed)
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for n in range(warm + rounds):
        shuffled.shuffle(order)
        for name in order:
            begun = time.perf_counter()
            own = sides[name]()
            taken = time.perf_counter() - begun
            if n >= warm:
                samples[name].append(own if isinstance(own, float) else taken)
    return {name: Figure.of(values) for name, values in samples.items()}


def show(value: float, unit: str) -> str:
    """A number with three digits and the unit that fits."""
    if unit == "s":
        for scale, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
            if abs(value) >= scale:
                return f"{value / scale:.3g} {name}"
        return f"{value * 1e9:.3g} ns"
    if unit in ("B", "B/s"):
        for scale, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if abs(value) >= scale:
                return f"{value / scale:.3g} {name}{unit[1:]}"
    if abs(value) >= 1000:
        return f"{value:,.0f}{unit and ' ' + unit}"
    return f"{value:.3g}{unit and ' ' + unit}"


def report(name: str, title: str, rows: list[Row], notes: list[str], quick: bool) -> None:
    """Print the rows; keep them under bench/results unless the run was only a quick look."""
    print(f"\n{title}")
    for row in rows:
        verdict = "" if row.met is None else "  met" if row.met else "  NOT MET"
        print(f"  {row.what}")
        print(f"    {'trims':<34} {row.trims}")
        for label, figure in row.beside.items():
            print(f"    {label:<34} {figure}   {_ratio(row, label)}")
        if row.target:
            print(f"    target: {row.target}{verdict}")
    for note in notes:
        print(f"  {note}")
    sys.stdout.flush()
    if not quick:
        RESULTS.mkdir(parents=True, exist_ok=True)
        document = {
            "schema": "trims.bench/1",
            "name": name,
            "title": title,
            "machine": machine.describe(),
            "limits": machine.limits(),
            "rows": [as_json(row) for row in rows],
            "notes": notes,
        }
        (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _ratio(row: Row, label: str) -> str:
    ratio = _ratios(row).get(label)
    return f"{ratio:.3g}x of trims" if ratio else ""


def _ratios(row: Row) -> dict[str, float]:
    """How many times trims' figure each other one is, where that says anything."""
    if not (row.comparable and row.trims.p50):
        return {}
    return {k: v.p50 / row.trims.p50 for k, v in row.beside.items() if v.unit == row.trims.unit}


def as_json(row: Row) -> dict[str, Any]:
    """A row as results keep it."""
    return {
        "what": row.what,
        "trims": vars(row.trims),
        "beside": {k: vars(v) for k, v in row.beside.items()},
        "ratios": _ratios(row),
        "target": row.target,
        "met": row.met,
    }
