"""Pictures of a report, as PNG and SVG.

The same report gives the same bytes (for one version of matplotlib): no dates, no random names, and only the font that
matplotlib itself brings. Backgrounds are opaque and light, so that a picture reads the same on a dark page.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from trims.errors import UsageError
from trims.linux import atomic
from trims.workload.report import Report

FORMS = ("png", "svg")


def check() -> None:
    """Raises UsageError where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise UsageError("pictures cannot be drawn", "matplotlib is not installed", "pip install 'trims[bench]'")


def names(report: Report) -> list[str]:
    """The pictures that this report has figures for."""
    return list(_drawers(report))


def render(report: Report, name: str, form: str = "png") -> bytes:
    """One picture's bytes. Raises UsageError without matplotlib or for a picture that this report cannot give."""
    check()
    drawers = _drawers(report)
    if name not in drawers:
        known = ", ".join(drawers) or "none"
        raise UsageError(f"no picture {name!r} of this report", "", f"it can give {known}")
    from trims.workload.pictures import style

    return style.render(drawers[name], form)


def draw(report: Report, directory: str) -> list[str]:
    """Write every picture of the report into `directory`, made if missing; the paths of the files."""
    check()
    try:
        atomic.make_directory(os.path.abspath(directory))
        written = []
        for name in names(report):
            for form in FORMS:
                path = os.path.join(directory, f"{name}.{form}")
                atomic.replace(path, render(report, name, form), directory, durable=False)
                written.append(path)
    except OSError as error:
        raise atomic.translate(error, "writing the pictures") from None
    return written


def _drawers(report: Report) -> dict[str, Callable[[], Any]]:
    """name -> what draws it, for the pictures that this report has figures for."""
    from functools import partial

    from trims.workload.pictures import charts, maps

    cells = report.of()
    wanted: list[tuple[str, bool, Callable[[Report], Any]]] = [
        ("iso-efficiency", any(c.speedup is not None for c in cells), maps.iso_efficiency),
        ("batch-time-ratio", any(c.batch_ratio is not None for c in cells), maps.batch_ratio),
        ("latency-penalty", any(c.penalty is not None for c in cells), maps.penalty),
        ("hit-rate", bool(cells), charts.hit_rate),
        ("bytes-moved", bool(cells), charts.bytes_moved),
        ("latency", bool(report.curves), charts.latency),
        ("models", any(a.hit and (a.native_cold or a.native_warm) for a in report.alone), charts.models),
        ("policies", len({(c.distribution, c.policy) for c in report.cells}) > 1, charts.policies),
    ]
    return {name: partial(function, report) for name, there, function in wanted if there}
