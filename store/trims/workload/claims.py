"""Each claim of the paper beside what a report shows: the figure, how it comes from the report, and a verdict.

The paper's figures are those of its table of results (IEEE CLOUD 2019, sections 5 and 6): on GPU memory, with MXNet. A
machine without a GPU can show the same relations with the host's memory as the place that models share: every verdict
here is about that place, which whoever shows the claims must say (`HOST`). A verdict is never softened: a figure below
the paper's is "not met", and a figure that the report cannot give is "cannot be shown here", with the reason.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trims.workload.models import ModelSpec, total_bytes
from trims.workload.report import Report, Times
from trims.workload.summary import Cell, geometric_mean, sweet_spot

MET, NOT_MET, CANNOT = "met", "not met", "cannot be shown here"
HOST = "No GPU is used: in all of these the host's memory stands in for the GPU's."


@dataclass(frozen=True, slots=True)
class Stated:
    """One claim as the paper makes it. how: how its figure is computed from a report; target: the figure to reach."""

    key: str
    claim: str
    paper: str
    target: float | None
    how: str

    def shown(self, value: float, here: str, met: bool | None = None, caveat: str = "") -> Claim:
        """With the figure that a report gives. met: by default, whether it reaches the target."""
        reached = value >= (self.target or 0.0) if met is None else met
        return Claim(self, here, MET if reached else NOT_MET, value, caveat)

    def cannot(self, why: str) -> Claim:
        """Where a report cannot give the figure."""
        return Claim(self, why, CANNOT)


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and what became of it.

    here: the figure in words, with what lies beside it; value: the plain number, None where there is none; caveat: what
    the reader must know.
    """

    stated: Stated
    here: str
    verdict: str
    value: float | None = None
    caveat: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            **asdict(self.stated),
            "here": self.here,
            "value": self.value if self.value is not None and math.isfinite(self.value) else None,
            "verdict": self.verdict,
            "caveat": self.caveat,
            "place": "host",
        }


_SMALL = Stated(
    "small-latency",
    "Latency of one inference, image classification models, against the framework started cold",
    "up to 24x", 24.0,
    "largest (native, cold) / (trims, resident) of the small models alone, to the first result",
)  # fmt: skip
_LARGE = Stated(
    "large-latency", "The same, large models", "up to 210x", 210.0,
    "largest (native, cold) / (trims, resident) of the large models alone, to the first result",
)  # fmt: skip
_THROUGHPUT = Stated(
    "throughput", "Throughput of the whole machine with sharing", "up to 8x", 8.0,
    "largest batch-time ratio, native / trims, of all cells",
)  # fmt: skip
_TOGETHER = Stated(
    "oversubscription", "37 small models together against the memory for models: they can never all be resident",
    "about 2x", 2.0,
    "bytes of all small models / budget; every request of the cells with all models in play must be served",
)  # fmt: skip
_BATCH = Stated(
    "oversubscribed-batch", "Oversubscribed, 10 clients at once: the batch finishes sooner", "about 8x", 8.0,
    "native batch time / trims batch time of the cell with all models and most clients",
)  # fmt: skip
_PENALTY = Stated(
    "oversubscribed-penalty", "The price of evicting: each request's latency grows", "about 20 %", 0.2,
    "mean latency of the same cell / that of the same requests with room for all models, less 1; at most",
)  # fmt: skip
_SPOT = Stated(
    "sweet-spot", "Sweet spot: models and clients can be added while the batch stays no slower than 1x, up to",
    "about 40 % of the models", 0.4,
    "largest share of models up to which every cell's batch-time ratio is at least 1, for the most clients",
)  # fmt: skip
_LIMIT = Stated(
    "bottleneck", "With disk reads gone, what limits is", "the computation", 0.5,
    "median share of a request's time after its weights are usable, trims resident; also above the native share",
)  # fmt: skip


def claims(report: Report) -> tuple[Claim, ...]:
    """Every claim of the paper's table of results, in its order."""
    return (
        _alone(report, "small", _SMALL),
        _alone(report, "large", _LARGE),
        _throughput(report),
        _oversubscription(report),
        _batch(report),
        _penalty(report),
        _sweet_spot(report),
        _bottleneck(report),
    )


def gains(report: Report, family: str, side: str = "hit", until: str = "done") -> dict[str, float]:
    """model -> (native, its page cache as the configuration says) / (trims), of the models of a family that have both.

    side: "hit", a resident model, or "load", one that trims must bring from the disk. until: "done" or "ready".
    """
    cache = str(report.configuration.get("cache", "cold"))
    family_of = {model.name: model.family for model in report.models}
    found = {}
    for alone in report.alone:
        ours: Times | None = getattr(alone, side)
        theirs = alone.native(cache)
        if family_of.get(alone.model) == family and ours is not None and theirs is not None:
            found[alone.model] = float(getattr(theirs, until) / getattr(ours, until))
    return found


def to_markdown(found: Iterable[Claim]) -> str:
    """The claims as a Markdown table."""
    lines = ["| The paper | There | Here | Verdict |", "|---|---|---|---|"]
    for c in found:
        note = f"<br>{c.caveat}" if c.caveat else ""
        lines.append(f"| {c.stated.claim} | {c.stated.paper} | {c.here}{note} | **{c.verdict}** |")
    return "\n".join([*lines, "", HOST]) + "\n"


def _alone(report: Report, family: str, stated: Stated) -> Claim:
    found = gains(report, family)
    if not found:
        return stated.cannot("no such model was measured")
    ready = gains(report, family, until="ready")
    best = max(found, key=lambda name: found[name])
    here = f"up to {_times(found[best])} ({best}), {_times(geometric_mean(list(found.values())))} on average"
    here += f"; until weights are usable up to {_times(max(ready.values()))}"
    scale = report.configuration.get("scale", 1.0)
    caveat = "" if scale == 1.0 else f"models at {scale:g} of the paper's sizes"
    return stated.shown(found[best], here, caveat=caveat)


def _throughput(report: Report) -> Claim:
    found = {cell.batch_ratio: cell for cell in report.of() if cell.batch_ratio is not None}
    if not found:
        return _THROUGHPUT.cannot("no native batch was measured")
    value = max(found)
    return _THROUGHPUT.shown(value, f"up to {_times(value)} ({_where(found[value])})")


def _oversubscription(report: Report) -> Claim:
    ratio, full = report.oversubscription, _full(report.of())
    if ratio is None or not full:
        return _TOGETHER.cannot("no cell with all models was measured")
    failed = sum(cell.trims.failed for cell in full)
    hits = sum(cell.trims.hits + cell.trims.joined for cell in full) / max(1, sum(c.trims.requests for c in full))
    here = f"{_times(ratio)}; {failed} requests failed, {hits:.0%} found their model resident or on its way"
    return _TOGETHER.shown(ratio, here, met=ratio >= 1.9 and not failed)


def _batch(report: Report) -> Claim:
    cell = _worst(report)
    if cell is None or cell.batch_ratio is None:
        return _BATCH.cannot("that cell was not measured natively")
    return _BATCH.shown(cell.batch_ratio, f"{_times(cell.batch_ratio)} ({_where(cell)})")


def _penalty(report: Report) -> Claim:
    cell = _worst(report)
    if cell is None or cell.penalty is None:
        return _PENALTY.cannot("no run with room for all models was measured")
    return _PENALTY.shown(cell.penalty, f"{cell.penalty:+.0%} ({_where(cell)})", met=cell.penalty <= 0.2)


def _sweet_spot(report: Report) -> Claim:
    found = sweet_spot(report.of())
    if not found:
        return _SPOT.cannot("no cell was measured")
    most, low, high = max(found), min(found.values()), max(found.values())
    alone = sweet_spot(replace(cell, batch_ratio=None) for cell in report.of() if cell.speedup is not None)
    here = f"{found[most]:.0%} of the models with {most} clients ({low:.0%} to {high:.0%} over all numbers of clients)"
    if alone and (least := min(alone)) != most:
        here += f"; where each request is compared with natively alone, {alone[least]:.0%} with {_clients(least)}"
        here += f" and {alone[most]:.0%} with {most}"
    return _SPOT.shown(found[most], here)


def _bottleneck(report: Report) -> Claim:
    small = {model.name for model in report.small}
    pairs = [(a.native_cold, a.hit) for a in report.alone if a.native_cold and a.hit and a.model in small]
    if not pairs:
        return _LIMIT.cannot("no model was measured alone")
    before = _median([_computing(cold) for cold, _ in pairs])
    after = _median([_computing(hit) for _, hit in pairs])
    weights = report.configuration.get("function") == "weights"
    caveat = "one pass over the weights stands for the computation" if weights else ""
    here = f"{after:.0%} of a request is computation with trims, {before:.0%} natively"
    return _LIMIT.shown(after, here, met=after > max(0.5, before), caveat=caveat)


def _computing(times: Times) -> float:
    return 1 - times.ready / times.done


def _full(cells: Iterable[Cell]) -> list[Cell]:
    return [cell for cell in cells if cell.share >= 1.0]


def _worst(report: Report) -> Cell | None:
    """The cell with all models in play and the most clients."""
    return max(_full(report.of()), key=lambda cell: cell.clients, default=None)


def _where(cell: Cell) -> str:
    return f"{cell.share:.0%} of the models, {_clients(cell.clients)}"


def _clients(count: int) -> str:
    return f"{count} client{'s' if count != 1 else ''}"


def _times(value: float) -> str:
    return f"{value:.3g}x"


def _median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def oversubscribed(models: Sequence[ModelSpec], factor: float = 2.0) -> int:
    """The budget in bytes for which these models need `factor` times the memory; not less than the largest of them."""
    return max(math.ceil(total_bytes(models) / factor), max(model.nbytes for model in models))
