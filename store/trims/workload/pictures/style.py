"""How every picture looks, and how a figure becomes bytes that depend on nothing but its content."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from trims.errors import UsageError
from trims.workload.palette import ANCHORS

INK, PALE, PAPER = "#222222", "#d8d4cc", "#ffffff"
TRIMS, NATIVE, THIRD = "#1f6fb4", "#d2761e", "#6b6b6b"
# Okabe and Ito's colours, which stay apart with every common colour vision deficiency (their yellow is too pale here).
SERIES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#000000")
_STYLE = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.edgecolor": INK, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "grid.color": PALE,
    "figure.facecolor": PAPER, "axes.facecolor": PAPER, "savefig.facecolor": PAPER, "legend.frameon": False,
    "svg.hashsalt": "trims", "svg.fonttype": "path", "path.simplify": True, "figure.dpi": 110,
}  # fmt: skip


def figure(width: float, height: float, title: str, under: str) -> tuple[Any, Any]:
    """(figure, its axes) of this many inches, with a title and a line of explanation under it."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    axes = made.add_subplot()
    axes.set_title(title, loc="left", pad=22)
    note = axes.annotate(under, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", fontsize=8)
    note.set_in_layout(False)  # it stands in the title's padding
    return made, axes


def colours() -> Any:
    """The colour map of ratios, as matplotlib's."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("trims", [tuple(c / 255 for c in rgb) for rgb in ANCHORS])


def render(draw: Callable[[], Any], form: str) -> bytes:
    """What `draw` gives (a figure), as "png" or "svg"."""
    import matplotlib

    if form not in ("png", "svg"):
        raise UsageError(f"no picture in the form {form!r}", "", "use png or svg")
    metadata = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    buffer = io.BytesIO()
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
        draw().savefig(buffer, format=form, metadata=metadata)
    return buffer.getvalue()
