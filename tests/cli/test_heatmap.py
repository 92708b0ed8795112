"""The map in a terminal: numbers without colour, colours with the sign of the ratio, the border of the sweet spot."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import reports
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from trims.workload import palette
from trims_cli import heatmap


def drawn(cells: object = None, **options: bool) -> list[Text]:
    return heatmap.lines(reports.grid() if cells is None else cells, lambda c: c.batch_ratio, "title", **options)  # type: ignore[arg-type]


def test_every_number_is_there_and_most_clients_on_top() -> None:
    plain = [line.plain for line in drawn()]
    assert plain[0] == "title" and plain[1].startswith("clients 10 ") and plain[3].startswith("         1 ")
    assert plain[1].split()[2:] == ["4.4x", "1.9x", "1.2x", "▏0.89x"]
    assert plain[4].split() == ["10%", "40%", "70%", "100%"]
    assert all(line.plain.isascii() for line in drawn(unicode=False)[1:])


def test_squares_are_blue_above_one_and_orange_below() -> None:
    row = drawn()[1]
    styles = {row.plain[span.start : span.end].strip(): span.style for span in row.spans}
    rgb = {text: style.bgcolor.triplet for text, style in styles.items()}  # type: ignore[union-attr]
    assert rgb["4.4x"].blue > rgb["4.4x"].red and rgb["0.89x"].red > rgb["0.89x"].blue


def test_a_missing_cell_is_a_dash() -> None:
    assert "-" in drawn(reports.grid()[1:])[3].plain.split()
    assert drawn(())[0].plain == "title"


_SHOW = "from helpers import reports; from trims_cli import heatmap; import sys;" + (
    "heatmap.show(heatmap.lines(reports.grid(), lambda c: c.batch_ratio, 'title'), sys.argv[1])"
)


@pytest.mark.parametrize(
    ("colour", "env", "wanted", "unwanted"),
    [
        ("auto", {}, "1.9x", "\x1b"),
        ("always", {}, "\x1b[38;2;", "\x1b[97;"),
        ("always", {"NO_COLOR": "1"}, "1.9x", "38;2"),
    ],
)
def test_output_has_escapes_only_where_wanted(colour: str, env: dict[str, str], wanted: str, unwanted: str) -> None:
    """Each in an interpreter of its own: rich keeps the codes that a style was first written with."""
    path = os.pathsep.join([str(Path(__file__).resolve().parent.parent), *sys.path])
    asked = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    asked |= {"COLORTERM": "truecolor", "TERM": "xterm-256color", "PYTHONPATH": path, **env}
    out = subprocess.run([sys.executable, "-c", _SHOW, colour], env=asked, capture_output=True, text=True, check=True)
    assert wanted in out.stdout and unwanted not in out.stdout


@given(st.floats(0.01, 1e4))
def test_numbers_fit_and_inks_contrast(ratio: float) -> None:
    assert len(heatmap.number(ratio)) <= 6
    back = palette.colour(palette.position(ratio, 1e4))
    light, dark = sorted([palette._luminance(back), palette._luminance(palette.ink(back))], reverse=True)
    assert (light + 0.05) / (dark + 0.05) > 4.5


def test_the_scale_is_symmetric() -> None:
    assert palette.position(1.0, 8.0) == 0.5
    assert palette.position(2.0, 8.0) - 0.5 == pytest.approx(0.5 - palette.position(0.5, 8.0))
    assert (palette.position(100.0, 8.0), palette.position(0.0, 8.0)) == (1.0, 0.0)
    assert palette.reach([0.25, 2.0]) == pytest.approx(4.0) and palette.reach([]) == 2.0
    assert palette.reach([math.nan, 1.0, 0.0]) == 2.0
