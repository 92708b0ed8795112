"""Maps: one square a cell, share of models to the right, clients upwards, the figure as colour and as number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trims.workload import palette
from trims.workload.pictures import style
from trims.workload.report import Report
from trims.workload.summary import Cell, sweet_spot

Figure = Callable[[Cell], float | None]


def iso_efficiency(report: Report) -> Any:
    """The paper's Figure 11."""
    under = f"geometric mean of (natively and alone, page cache {_cache(report)}) / (with trims, among the others)"
    return _ratios(report, lambda cell: cell.speedup, "Iso-efficiency: speed-up of a request", under)


def batch_ratio(report: Report) -> Any:
    """How much sooner the whole batch is done than the same batch natively."""
    under = f"native batch time / trims batch time, same requests, same clients, page cache {_cache(report)}"
    return _ratios(report, lambda cell: cell.batch_ratio, "Batch time against native", under)


def penalty(report: Report) -> Any:
    """What each request pays for evictions."""
    under = "mean latency / mean latency of the same requests with room for all models"
    value: Figure = lambda cell: None if cell.penalty is None else 1 + cell.penalty  # noqa: E731
    return _ratios(report, value, "The price of evicting", under, better_below=True)


def _cache(report: Report) -> str:
    return str(report.configuration.get("cache", "cold"))


def _ratios(report: Report, value: Figure, title: str, under: str, better_below: bool = False) -> Any:
    cells = report.of()
    shares, clients = sorted({c.share for c in cells}), sorted({c.clients for c in cells})
    values = {(c.share, c.clients): v for c in cells if (v := value(c)) is not None}
    most = palette.reach(values.values())
    figure, axes = style.figure(max(6.2, 1.9 + 0.55 * len(shares)), 1.9 + 0.36 * len(clients), title, under)
    for (share, count), ratio in values.items():
        at = palette.position(1 / ratio if better_below and ratio > 0 else ratio, most)
        rgb = palette.colour(at)
        x, y = shares.index(share), clients.index(count)
        axes.add_patch(_square(x, y, rgb))
        axes.text(
            x,
            y,
            f"{ratio:.2f}" if ratio < 1 else f"{ratio:.1f}" if ratio < 10 else f"{ratio:.0f}",
            ha="center",
            va="center",
            color=_css(palette.ink(rgb)),
            fontsize=8,
        )
    _axes(axes, shares, clients)
    _line(axes, sweet_spot(cells), shares, clients)
    figure.legend(loc="outside lower right", fontsize=8)
    _bar(figure, axes, most, better_below)
    return figure


def _square(x: int, y: int, rgb: palette.RGB) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=_css(rgb), edgecolor=style.PAPER, linewidth=1)


def _css(rgb: palette.RGB) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _axes(axes: Any, shares: Sequence[float], clients: Sequence[int]) -> None:
    axes.set_xlim(-0.5, len(shares) - 0.5)
    axes.set_ylim(-0.5, len(clients) - 0.5)
    axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
    axes.set_yticks(range(len(clients)), [str(count) for count in clients])
    axes.set_xlabel("share of the models in play")
    axes.set_ylabel("clients at once")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _line(axes: Any, spot: dict[int, float], shares: Sequence[float], clients: Sequence[int]) -> None:
    """The border of the sweet spot: left of it every batch is no slower than natively."""
    xs, ys = [], []
    for y, count in enumerate(clients):
        edge = (shares.index(spot[count]) + 0.5) if spot.get(count) else -0.5
        xs += [edge, edge]
        ys += [y - 0.5, y + 0.5]
    axes.plot(xs, ys, color=style.INK, linewidth=2, clip_on=False, label="sweet spot: batch no slower than natively")


def _bar(figure: Any, axes: Any, most: float, better_below: bool) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    colours = style.colours()
    scale = ScalarMappable(LogNorm(1 / most, most), colours.reversed() if better_below else colours)
    bar = figure.colorbar(scale, ax=axes, pad=0.02, aspect=18)
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if 1 / most <= t <= most]
    bar.set_ticks(ticks, labels=[f"{t:g}x" for t in ticks])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
