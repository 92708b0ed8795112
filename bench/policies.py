"""Which policy, and which min_resident, should be the default: every policy simulated on the same streams.

    python -m bench.policies            run the study: results/policy_study.json and the tables of docs/policies.md
    python -m bench.policies --check    only fail when the document does not show those results
    python -m bench.policies --tables   only write the tables anew
    python -m bench.policies --quick    a short run that keeps nothing

Options: --cost FILE, from `trims bench calibrate`. Policies are compared by mean latency, as ratios: to lru, and
to the best evicting policy of that cell. Over cells they are averaged by their geometric mean. Each seed gives one such
average; a difference counts when it has the same sign for all seeds.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench import policy_cells as study
from bench.harness import RESULTS, ROOT, show
from bench.sections import fill
from trims.residency.policies import POLICIES
from trims.workload import cost as costs

PAGE, KEPT = ROOT / "docs" / "policies.md", RESULTS / "policy_study.json"
Cell = dict[str, Any]


# ---- running


def run(cost: costs.Cost, quick: bool) -> dict[str, Any]:
    """The whole study as one document."""
    begun = time.process_time()
    cells = []
    for asked in study.cells(quick):
        cells.append(study.run_cell(*asked, cost))
        catalogue, workload, budget, clients = asked
        say(f"{catalogue.name}, {workload}, {budget:.0%}, {clients} clients", begun)
    stays = []
    for name, make in study.stay_cells(quick):
        stays.append(study.run_stays(name, make, cost))
        say(name, begun)
    catalogues = {
        found.name: {"models": len(found.models), "nbytes": sum(m.nbytes for m in found.models),
                     "requests": found.requests}
        for found in study.catalogues(quick)
    }  # fmt: skip
    return {
        "schema": "trims.policies/1", "seeds": study.SEEDS, "catalogues": catalogues, "cost": cost.to_dict(),
        "cells": cells, "stays": {"values": study.STAYS, "cells": stays},
        "seconds": round(time.process_time() - begun, 1),
    }  # fmt: skip


def say(what: str, begun: float) -> None:
    print(f"{time.process_time() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)


# ---- what it says


def geometric(ratios: Iterable[float]) -> float:
    logs = [math.log(ratio) for ratio in ratios]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def to_best(cell: Cell, seed: int, policy: str, figure: str = "mean") -> float:
    """A policy's latency over that of the cell's best one that evicts, of one seed."""
    found = cell["figures"][figure]
    return float(found[policy][seed] / min(found[name][seed] for name in found if POLICIES[name].evicts))


def standing(cells: Sequence[Cell], policy: str, seeds: int) -> dict[str, Any]:
    """How a policy does over cells.

    best: geometric mean over cells of the ratio to the best, the median of the seeds; worst: the largest of a cell's
    ratios (median of its seeds), and where; bad: cells whose ratio is above 1.1. lru: (least, most) over seeds of the
    geometric mean over lru's.
    """
    by_seed = [geometric(to_best(cell, seed, policy) for cell in cells) for seed in range(seeds)]
    over = [
        geometric(to_best(cell, seed, policy) / to_best(cell, seed, "lru") for cell in cells) for seed in range(seeds)
    ]
    ratios = [median(to_best(cell, seed, policy) for seed in range(seeds)) for cell in cells]
    where = max(range(len(cells)), key=ratios.__getitem__)
    return {
        "best": median(by_seed), "worst": ratios[where], "where": label(cells[where]), "lru": (min(over), max(over)),
        "bad": sum(ratio > 1.1 for ratio in ratios),
        "hits": middle(cells, "hit_rate", policy), "byte_hits": middle(cells, "byte_hit_rate", policy),
        "bytes": geometric(
            median(cell["figures"]["bytes_loaded"][policy]) / median(cell["figures"]["bytes_loaded"]["lru"])
            for cell in cells
        ),
        "of_bound": sum(median(c["figures"]["hit_rate"][policy]) / median(c["limits"]["bound"]) for c in cells)
        / len(cells),
    }  # fmt: skip


def middle(cells: Sequence[Cell], figure: str, policy: str) -> float:
    """Mean over cells of the medians over seeds."""
    return sum(median(cell["figures"][figure][policy]) for cell in cells) / len(cells)


def label(cell: Cell) -> str:
    clients = "1 client" if cell["clients"] == 1 else f"{cell['clients']} clients"
    return f"{cell['catalogue']}, {cell['workload']}, {cell['budget']:.0%}, {clients}"


def ranking(document: dict[str, Any]) -> str:
    """Table: policies over all cells, the best default first."""
    cells, seeds = document["cells"], len(document["seeds"])
    found = {name: standing(cells, name, seeds) for name in POLICIES}
    rows = [
        [
            f"`{name}`", f"{s['best']:.3f}", f"{s['worst']:.2f}", s["where"], str(s["bad"]),
            f"{s['lru'][0]:.3f} to {s['lru'][1]:.3f}",
            f"{s['hits']:.1%}", f"{s['byte_hits']:.1%}", f"{s['bytes']:.2f}", f"{s['of_bound']:.1%}",
        ]
        for name, s in sorted(found.items(), key=lambda item: item[1]["best"])
    ]  # fmt: skip
    heads = ("Policy", "Latency to best", "Worst", "Worst where", "Above 1.1", "Latency to lru, by seed", "Hits",
             "Byte hits", "Bytes to lru", "Of bound")  # fmt: skip
    return table(heads, rows) + "\n" + groups(cells, seeds)


def groups(cells: Sequence[Cell], seeds: int) -> str:
    """Table: latency to the best policy by part of the study."""
    parts: dict[str, Callable[[Cell], bool]] = {
        "37 models, stationary": lambda c: c["catalogue"] == "paper" and c["workload"] not in ("shift", "scan"),
        "1,000 models, stationary": lambda c: c["catalogue"] == "tail" and c["workload"] not in ("shift", "scan"),
        "popularity shifts": lambda c: c["workload"] == "shift",
        "a third asked for once": lambda c: c["workload"] == "scan",
        "budget 10 %": lambda c: c["budget"] == 0.10,
        "budget 25 %": lambda c: c["budget"] == 0.25,
        "budget 50 %": lambda c: c["budget"] == 0.50,
        "1 client": lambda c: c["clients"] == 1,
        "8 clients": lambda c: c["clients"] == 8,
    }
    rows = []
    for name, inside in parts.items():
        part = [cell for cell in cells if inside(cell)]
        values = {policy: standing(part, policy, seeds)["best"] for policy in POLICIES}
        least = min(value for policy, value in values.items() if POLICIES[policy].evicts)
        marked = [f"**{value:.3f}**" if value == least else f"{value:.3f}" for value in values.values()]
        rows.append([name, str(len(part)), *marked])
    return table(("Latency to best", "Cells", *POLICIES), rows)


def every_cell(document: dict[str, Any]) -> str:
    """Table: mean latency of each cell in milliseconds, and the hit rates of its limits."""
    rows = []
    for cell in document["cells"]:
        means = {name: 1e3 * median(cell["figures"]["mean"][name]) for name in POLICIES}
        least = min(value for name, value in means.items() if POLICIES[name].evicts)
        shown = [f"**{value:.0f}**" if value == least else f"{value:.0f}" for value in means.values()]
        limits = [f"{median(cell['limits'][name]):.1%}" for name in ("bound", "offline")]
        rows.append(
            [label(cell), *shown, f"{max(median(v) for v in cell['figures']['hit_rate'].values()):.1%}", *limits]
        )
    return table(("Mean latency, ms", *POLICIES, "Most hits", "Bound", "Offline"), rows)


def stays(document: dict[str, Any]) -> str:
    """Table: mean latency under lru, as a ratio to that without min_resident."""
    values, seeds = document["stays"]["values"], range(len(document["seeds"]))
    rows, ratios = [], []
    for cell in document["stays"]["cells"]:
        means = cell["mean"]
        ratio = [median(means[i][seed] / means[0][seed] for seed in seeds) for i in range(len(values))]
        ratios.append(ratio)
        rows.append([cell["name"], show(median(means[0]), "s"), *(f"{r:.2f}" for r in ratio[1:])])
    columns = list(zip(*ratios, strict=True))[1:]
    rows.append(["geometric mean", "", *(f"{geometric(column):.2f}" for column in columns)])
    rows.append(["worst", "", *(f"{max(column):.2f}" for column in columns)])
    return table(("min_resident", "0 s", *(f"{value:g} s" for value in values[1:])), rows)


def setting(document: dict[str, Any]) -> str:
    """What was run, in a sentence or two."""
    parts = [
        f"{name}: {found['models']:,} models, {show(found['nbytes'], 'B')}, {found['requests']:,} requests a run"
        for name, found in document["catalogues"].items()
    ]
    about = document["cost"]["about"].get("machine") or document["cost"]["about"].get("cpu", "measured")
    return (
        f"{len(document['cells'])} cells, {len(document['seeds'])} seeds each. {'; '.join(parts)}.\n"
        f"Costs: {about}. It took {document['seconds']:.0f} s of one core.\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


SECTIONS: dict[str, Callable[[dict[str, Any]], str]] = {
    "setting": setting, "ranking": ranking, "stays": stays, "cells": every_cell,
}  # fmt: skip


def page(text: str, document: dict[str, Any]) -> str:
    """The page with every section's tables as the document has them."""
    return fill(text, "bench.policies", {name: partial(write, document) for name, write in SECTIONS.items()}, PAGE.name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--check", "--tables", "--quick"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--cost", type=Path)
    asked = parser.parse_args()
    if not (asked.check or asked.tables):
        cost = costs.from_json(asked.cost.read_text(), str(asked.cost)) if asked.cost else costs.ASSUMED
        document = run(cost, asked.quick)
        if asked.quick:
            print(ranking(document), stays(document), sep="\n")
            return 0
        KEPT.write_text(json.dumps(document, separators=(",", ":")).replace('{"catalogue"', '\n{"catalogue"') + "\n")
    text = PAGE.read_text(encoding="utf-8")
    wanted = page(text, json.loads(KEPT.read_text()))
    if asked.check:
        if text != wanted:
            print("docs/policies.md and bench/results differ: run python -m bench.policies --tables", file=sys.stderr)
        return int(text != wanted)
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
