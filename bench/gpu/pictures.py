"""One picture of a run: rates beside their limits, attaching by size, memory of many clients, the paper's map.

Needs Matplotlib; without it there is none. Panels whose items were not done are left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trims.workload import palette

Rows = list[dict[str, Any]]
OURS, OTHER = (8 / 255, 60 / 255, 120 / 255), (235 / 255, 150 / 255, 60 / 255)


def draw(documents: list[dict[str, Any]], path: Path) -> bool:
    """Whether it was drawn."""
    panels = [(title, panel, found) for title, panel, find in PANELS if (found := find(_results(documents)))]
    if not panels or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.2 * len(panels)), layout="constrained")
    for axes, (title, panel, found) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        axes.set_title(title, fontsize=10, loc="left")
        panel(axes, found)
    device = documents[0]["device"]
    text = f"SIMULATED, no figures: {device['name']}" if documents[0]["simulated"] else device["name"]
    figure.suptitle(text, fontsize=11)
    figure.savefig(path, metadata={"Date": None})
    return True


def _results(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """What items found, by STAGE:ITEM."""
    return {
        f"{document['stage']}:{name}": item["result"]
        for document in documents
        for name, item in document["items"].items()
        if item["outcome"] == "done"
    }


def _starting(results: dict[str, Any], words: str) -> Rows:
    return [row for name, result in results.items() if name.startswith("figures:")
            for row in result.get("rows", ()) if row["what"].startswith(words)]  # fmt: skip


def _loads(results: dict[str, Any]) -> Rows:
    return _starting(results, "disk to GPU") + _starting(results, "host to GPU")


def _attaches(results: dict[str, Any]) -> Rows:
    return _starting(results, "attach ")


def _memory(results: dict[str, Any]) -> Rows:
    return [row for row in results.get("figures:clients", {}).get("rows", ()) if row["trims"]["unit"] == "B"]


def _cells(results: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = results.get("paper:figure_11", {}).get("cells", [])
    return found


def _bars(axes: Any, rows: Rows, scale: float, unit: str) -> None:
    """trims and the best of what is beside it, a pair a row."""
    for n, row in enumerate(reversed(rows)):
        axes.barh(n + 0.2, row["trims"]["p50"] / scale, 0.38, color=OURS, label="trims" if not n else None)
        beside = [figure["p50"] for figure in row["beside"].values() if figure["unit"] == row["trims"]["unit"]]
        if beside:
            axes.barh(n - 0.2, max(beside) / scale, 0.38, color=OTHER, label="beside it, the most" if not n else None)
    axes.set_yticks(range(len(rows)), [row["what"].partition(":")[0] for row in reversed(rows)], fontsize=7)
    axes.set_xlabel(unit, fontsize=8)
    axes.legend(fontsize=7)


def _rates(axes: Any, rows: Rows) -> None:
    _bars(axes, rows, 1 << 30, "GiB/s")


def _times(axes: Any, rows: Rows) -> None:
    for n, row in enumerate(reversed(rows)):
        axes.plot([1e3 * row["trims"]["p50"], 1e3 * row["trims"]["p99"]], [n, n], color=OURS, marker="|")
    axes.set_yticks(range(len(rows)), [row["what"] for row in reversed(rows)], fontsize=7)
    axes.set_xlabel("ms, p50 to p99", fontsize=8)
    axes.set_xscale("log")


def _bytes(axes: Any, rows: Rows) -> None:
    _bars(axes, rows, 1 << 30, "GiB of the GPU's memory, contexts apart")


def _map(axes: Any, cells: list[dict[str, Any]]) -> None:
    shares, clients = sorted({c["share"] for c in cells}), sorted({c["clients"] for c in cells})
    most = palette.reach(cell["cold"] for cell in cells)
    for cell in cells:
        x, y = shares.index(cell["share"]), clients.index(cell["clients"])
        colour = palette.colour(palette.position(cell["cold"], most))
        axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=[c / 255 for c in colour])
        ink = [c / 255 for c in palette.ink(colour)]
        axes.text(x, y, f"{cell['cold']:.3g}x", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares], fontsize=8)
    axes.set_yticks(range(len(clients)), [str(count) for count in clients], fontsize=8)
    axes.set_xlabel("models in play", fontsize=8)
    axes.set_ylabel("clients", fontsize=8)


PANELS: tuple[tuple[str, Callable[[Any, Any], None], Callable[[dict[str, Any]], Any]], ...] = (
    ("Loads to the GPU, beside the limit of each", _rates, _loads),
    ("Attaching a resident model", _times, _attaches),
    ("Memory of clients, beside a native copy each", _bytes, _memory),
    ("The paper's map: speed-up over native, cold", _map, _cells),
)
