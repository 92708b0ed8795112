"""Pictures: every one a report has figures for, the same bytes each time, and a word when nothing can draw them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from helpers import reports

from trims.errors import TrimsError, UsageError
from trims.workload import pictures

needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is absent")


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """matplotlib keeps the files of its fonts open from its first picture on: they are no leak of a test."""
    if importlib.util.find_spec("matplotlib") is not None:
        pictures.render(reports.report(), "models")


@needs_matplotlib
def test_every_picture_in_both_forms_small_and_repeatable(tmp_path: Path) -> None:
    made = reports.report().with_cell(reports.cell(policy="lfu", ratio=3.0))
    paths = [Path(path) for path in pictures.draw(made, str(tmp_path / "new"))]
    assert {path.name for path in paths} == {f"{n}.{form}" for n in pictures.names(made) for form in ("png", "svg")}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in paths}
    for path in paths:
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<?xml") and len(data) < 200_000
    for form in pictures.FORMS:
        again = pictures.render(made, "batch-time-ratio", form)
        assert again == (tmp_path / "new" / f"batch-time-ratio.{form}").read_bytes()


@needs_matplotlib
def test_only_what_was_measured_is_drawn() -> None:
    assert pictures.names(reports.report(cells=(), alone=(), curves=())) == []
    assert "policies" not in pictures.names(reports.report())
    without = pictures.names(reports.report(cells=(reports.cell(ratio=None, penalty=None),), alone=(), curves=()))
    assert without == ["hit-rate", "bytes-moved"]
    with pytest.raises(UsageError, match="it can give hit-rate"):
        pictures.render(reports.report(cells=(reports.cell(ratio=None, penalty=None),), alone=(), curves=()), "models")


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'trims\[bench\]'"):
        pictures.draw(reports.report(), "/nowhere")


@needs_matplotlib
def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrimsError, match="writing the pictures failed"):
        pictures.draw(reports.report(), str(tmp_path / "file" / "below"))
