"""Charts: hit rates and bytes by share of models, latencies as distributions, models and policies side by side."""

from __future__ import annotations

from typing import Any

from trims.workload import claims
from trims.workload.pictures import style
from trims.workload.report import Report
from trims.workload.summary import Cell

MIB, GIB = 1 << 20, 1 << 30


def hit_rate(report: Report) -> Any:
    """Where requests found their model: resident, or on its way for another."""
    under = "share of requests that found their model in host memory, or on its way there"
    figure, axes = style.figure(6, 3.4, "Hit rate of the host place", under)
    for colour, (count, cells) in zip(_spread(style.SERIES, report), _by_clients(report).items(), strict=False):
        rates = [(c.trims.hits + c.trims.joined) / max(1, c.trims.requests - c.trims.failed) for c in cells]
        axes.plot([c.share for c in cells], rates, marker="o", markersize=4, color=colour, label=_clients(count))
    axes.set_ylim(0, 1.05)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return _shares(figure, axes)


def bytes_moved(report: Report) -> Any:
    """What went from disk to memory, beside what the same requests read natively."""
    under = "GiB from disk to host memory for one batch; natively every request reads its model"
    figure, axes = style.figure(6, 3.4, "Bytes moved", under)
    for colour, (count, cells) in zip(_spread(style.SERIES, report), _by_clients(report).items(), strict=False):
        loaded = [c.trims.bytes_loaded / GIB for c in cells]
        axes.plot([c.share for c in cells], loaded, marker="o", markersize=4, color=colour, label=_clients(count))
    first = next(iter(_by_clients(report).values()))
    asked = [c.trims.bytes_asked / GIB for c in first]
    axes.plot([c.share for c in first], asked, linestyle="--", color=style.INK, label="natively")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("GiB")
    return _shares(figure, axes)


def latency(report: Report) -> Any:
    """The distribution of latencies, both sides."""
    under = "share of requests that had their first result by then"
    figure, axes = style.figure(6, 4, "Latency of a request", under)
    sides = {"trims": style.TRIMS, "native": style.NATIVE, "unlimited": style.THIRD}
    lines = ["-", "--", ":", "-."]
    counts = sorted({(curve.clients, curve.share) for curve in report.curves})
    for curve in report.curves:
        label = f"{curve.side}, {_clients(curve.clients)}, {curve.share:.0%} of the models"
        dash = lines[counts.index((curve.clients, curve.share)) % len(lines)]
        seconds, fractions = (curve.seconds[0], *curve.seconds), (0.0, *curve.fractions)
        axes.step(seconds, fractions, dash, where="post", color=sides.get(curve.side, style.INK), label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.6)
    _plain_numbers(axes.xaxis)
    axes.set_xlabel("seconds from asking to the first result")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    return figure


def models(report: Report) -> Any:
    """The speed-up of each model alone: Table 3 and the large ones."""
    cache = str(report.configuration.get("cache", "cold"))
    hits = {**claims.gains(report, "small"), **claims.gains(report, "large"), **claims.gains(report, "own")}
    loads = {name: value for f in ("small", "large", "own") for name, value in claims.gains(report, f, "load").items()}
    sizes = {model.name: model.nbytes for model in report.models}
    order = sorted(hits, key=lambda name: sizes[name])
    under = f"native (page cache {cache}) / trims, one client, to the first result; largest model on top"
    figure, axes = style.figure(6.5, 1.3 + 0.19 * len(order), "Speed-up of each model alone", under)
    rows = range(len(order))
    found = [hits[name] for name in order]
    axes.hlines(rows, [1.0] * len(order), found, color=style.TRIMS, linewidth=3)
    axes.plot(found, rows, "o", color=style.TRIMS, markersize=6, label="resident")
    known = [(row, loads[name]) for row, name in zip(rows, order, strict=True) if name in loads]
    axes.plot([v for _, v in known], [r for r, _ in known], "|", color=style.NATIVE, markersize=7, markeredgewidth=2,
              label="trims loads it first")  # fmt: skip
    axes.axvline(1, color=style.INK, linewidth=1)
    axes.set_yticks(rows, [f"{name}  {sizes[name] / MIB:,.0f} MiB" for name in order], fontsize=6.5)
    axes.set_ylim(-0.6, len(order) - 0.4)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis, "x")
    axes.grid(axis="x", alpha=0.6)
    axes.legend(fontsize=8, loc="lower right")
    return figure


def policies(report: Report) -> Any:
    """The speed-up (else the batch-time ratio) of each distribution and policy, at its most models and clients."""
    speedups = all(cell.speedup is not None for cell in report.cells)
    found: dict[str, dict[str, float]] = {}
    for cell in sorted(report.cells, key=lambda c: (c.share, c.clients)):
        value = cell.speedup if speedups else cell.batch_ratio
        if value is not None:
            found.setdefault(cell.policy, {})[cell.distribution] = value
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    what = "speed-up of a request over its model natively alone" if speedups else "native batch time / trims batch time"
    under = f"{what}; most models and clients of each"
    figure, axes = style.figure(7, 1.4 + 0.32 * len(names), "Distributions and policies", under)
    height = 0.8 / max(1, len(found))
    for at, (policy, row) in enumerate(found.items()):
        places = [names.index(name) + (at - (len(found) - 1) / 2) * height for name in row]
        axes.barh(
            places, list(row.values()), height=0.9 * height, color=style.SERIES[at % len(style.SERIES)], label=policy
        )
    axes.axvline(1, color=style.INK, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.grid(axis="x", alpha=0.6)
    axes.legend(fontsize=8)
    return figure


def _by_clients(report: Report) -> dict[int, list[Cell]]:
    """The cells of the map by number of clients, each list in order of share; at most as many as there are colours."""
    counts = sorted({cell.clients for cell in report.of()})
    step = max(1, -(-len(counts) // len(style.SERIES)))
    shown = sorted({*counts[::step], counts[-1]})[-len(style.SERIES) :]
    return {n: sorted((c for c in report.of() if c.clients == n), key=lambda c: c.share) for n in shown}


def _spread(colours: tuple[str, ...], report: Report) -> tuple[str, ...]:
    return colours[: len(_by_clients(report))]


def _plain_numbers(axis: Any, unit: str = "") -> None:
    """Numbers of a logarithmic axis as people write them; between powers of ten 2 and 5 only, for lack of room."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}{unit}" if f"{value:.0e}"[0] in "25" else ""))


def _clients(count: int) -> str:
    return f"{count} client{'s' if count != 1 else ''}"


def _shares(figure: Any, axes: Any) -> Any:
    axes.set_xlabel("share of the models in play")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.6)
    axes.legend(fontsize=8)
    return figure
