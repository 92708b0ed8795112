"""bench paper for real, with tiny models: interrupted once, gone on with, and what it leaves."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import cli, reports

from trims.errors import BadInput, NoRoom, NoSpace, UsageError
from trims.workload import paper_room, paper_set, report_file
from trims.workload.report import Key, to_json
from trims_cli import bench_paper, paper_view, parts
from trims_cli.settings import Settings

pytestmark = pytest.mark.skipif(importlib.util.find_spec("safetensors") is None, reason="safetensors is absent")
TINY = ("bench", "paper", "--quick", "--scale", "0.0005", "--share", "10%,100%", "--clients", "1,2", "--requests", "6")


def interrupted(words: list[str], cwd: Path) -> tuple[int, str]:
    """Run until it tells that its second cell is under way, then Ctrl-C: (exit code, its words on standard error)."""
    with subprocess.Popen(
        [*cli.TRIMS, *words, "--format", "jsonl"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if json.loads(line)["name"].startswith("10% of the models"):
                break
        process.send_signal(signal.SIGINT)
        return process.wait(60), process.stderr.read()


def test_interrupted_resumed_and_shown(home: Path) -> None:
    path, work = home / "report.json", home / "work"
    common = [*TINY, "--work-dir", str(work)]
    code, said = interrupted([*common, "-o", str(path)], home)
    assert code == -signal.SIGINT
    assert f"{path} keeps what was measured" in said and f"--resume {path}" in said and "Traceback" not in said
    kept = report_file.read(str(path))
    assert kept.partial and kept.cells and len(kept.alone) == 40

    has_matplotlib = importlib.util.find_spec("matplotlib") is not None
    drawing = ["--pictures", str(home / "drawn")] if has_matplotlib else []
    out = cli.ok(*common, "--resume", str(path), "--csv", str(home / "cells.csv"), *drawing)
    whole = report_file.read(str(path))
    assert not whole.partial and len(whole.cells) == 4 and whole.cells[: len(kept.cells)] == kept.cells
    assert whole.alone == kept.alone
    check_cells(whole.cells)
    assert "No GPU is used" in out and "Batch time, natively / with trims" in out and "\x1b" not in out
    assert f"report: {path}" in out and "up to 24x" in out and "FAMILY" in out
    assert len((home / "cells.csv").read_text().splitlines()) == 5
    assert str(work) not in path.read_text()
    if has_matplotlib:
        assert (home / "drawn" / "batch-time-ratio.svg").exists()
    assert not [name for name in os.listdir(home) if name.startswith("t-")]

    again = json.loads(cli.ok(*common, "--resume", str(path), "--json"))
    assert again["schema"] == "trims.bench-paper/1" and len(again["items"]) == 8
    assert {"key", "claim", "paper", "here", "value", "target", "verdict", "place"} <= set(again["items"][0])
    other = [*TINY[:-1], "7", "--work-dir", str(work), "--resume", str(path)]
    assert "requests is 6 there and 7 here" in cli.fails(2, *other)


def check_cells(cells: Any) -> None:
    for cell in cells:
        assert cell.trims.failed == cell.native.failed == 0 and cell.trims.requests == 6
        assert cell.speedup > 0 and cell.batch_ratio > 0
        assert (cell.unlimited is not None) == (cell.share == 1.0) == (cell.penalty is not None)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"function": "tea"}, "unknown function 'tea'"), ({"cache": "hot"}, "unknown cache"),
        ({"scale": 0.0}, "scale"), ({"scale": math.nan}, "scale"), ({"share": "0%"}, "share"),
        ({"clients": "many"}, "clients"), ({"clients": "0"}, "at least 1"), ({"requests": 0}, "at least 1"),
        ({"output": "/nowhere/x.json"}, "no such directory"), ({"csv": "/nowhere/x.csv"}, "no such directory"),
    ],
)  # fmt: skip
def test_bad_words_are_refused_before_any_work(home: Path, given: dict[str, Any], says: str) -> None:
    usual = dict.fromkeys(("share", "clients", "requests", "output", "csv", "pictures", "resume", "work_dir"))
    asked: dict[str, Any] = {"quick": True, "all": False, "scale": None, "function": "weights", "cache": "cold"}
    with pytest.raises(UsageError, match=says):
        bench_paper.run(Settings(), bench_paper.Asked(**{**asked, **usual, **given}))
    assert not list(home.rglob("*.json"))


def test_files_that_are_no_reports(home: Path) -> None:
    (home / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="is not replaced"):
        report_file.check(str(home / "letter.txt"))
    with pytest.raises(BadInput, match=r"absent\.json cannot be read"):
        report_file.read(str(home / "absent.json"))
    assert (home / "letter.txt").read_text() == "dear"
    cli.fails(16, "bench", "paper", "--resume", str(home / "letter.txt"))
    (home / "other.json").write_text(to_json(reports.report()))
    said = cli.fails(2, "bench", "paper", "--quick", "--scale", "0.001", "--resume", str(home / "other.json"))
    assert "cannot be gone on with" in said


def test_what_does_not_fit_is_refused_before_any_work(home: Path) -> None:
    small = paper_set.choose(True, False, 0.001, "weights", "cold")
    paper_room.check(small, str(home / "not" / "yet"))
    with pytest.raises(NoRoom, match=r"do not fit into memory.*--scale"):
        paper_room.check(replace(small, clients=(10**9,)), str(home))
    with pytest.raises(NoSpace, match=r"do not fit on the disk.*--scale.*--work-dir"):
        paper_room.check(replace(small, scale=16.0, large=4 * paper_set.GIB), "/proc")  # a disk without free bytes
    assert not (home / "not").exists()


def test_models_of_a_run_before_need_no_room_again(tmp_path: Path) -> None:
    chosen = paper_set.choose(True, False, 0.001, "weights", "cold")
    disk = os.statvfs(tmp_path)
    scale = 1.02 * disk.f_bavail * disk.f_frsize / (0.001**-1 * 2.1 * sum(m.nbytes for m in paper_room.specs(chosen)))
    if not 0.01 < scale < 16:
        pytest.skip("the disk is too small or too large to be filled by models of a possible scale")
    (tmp_path / "models").mkdir()
    (tmp_path / "beside").mkdir()
    large = replace(chosen, scale=scale, clients=(10**9,))  # which no memory holds: how it says that the disk did
    for where, fits in (("beside", False), ("models", True)):
        with open(tmp_path / where / "file", "wb") as file:
            file.truncate(int(0.2 * disk.f_bavail * disk.f_frsize) + (2 << 30))  # a hole: it only looks large
        with pytest.raises(NoRoom if fits else NoSpace):
            paper_room.check(large, str(tmp_path))


def test_the_paper_is_what_is_run() -> None:
    whole = paper_set.choose(False, True, None, "weights", "cold")
    keys = whole.map_keys()
    assert len(keys) == 100 and len(set(keys)) == 100 and keys[0] == Key(1.0, 10, paper_set.PARETO, "lru")
    assert (whole.scale, whole.requests) == (1.0, 100)
    others = whole.other_keys()
    assert len(others) == 9 * 2 * 3 - 3 and not set(others) & set(keys)
    models = paper_room.specs(whole)
    assert len([m for m in models if m.family == "small"]) == 37
    need = paper_set.need(models[:37], models[37:], 10, sessions=False)
    assert paper_set.need(models[:37], models[37:], 10, sessions=True)["disk"] > need["disk"] + (6 << 30)
    assert need["disk"] > 2 * sum(m.nbytes for m in models) and need["memory"] > sum(m.nbytes for m in models[:37])


def test_lines_of_progress(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert parts.Parts.line("cells", 25, 100, 30.0) == "cells: 25% done, about 1m left"
    assert parts.Parts.line("cells", 0, 0, 30.0) == "cells: 0% done"
    with parts.Parts(Settings(format="jsonl"), "bench-paper") as told:
        told._last = 0.0
        told("cells", 1.0, 4.0)
    assert json.loads(capsys.readouterr().out) == {
        "schema": "trims.bench-paper/1", "event": "progress", "name": "cells", "done": 1.0, "total": 4.0,
    }  # fmt: skip


def test_a_whole_report_in_colour(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    paper_view.show(Settings(color="always"), reports.report(), "r.json", ["pics/a.png"])
    out = capsys.readouterr().out
    assert "\x1b[" in out and "30x" in out and "cannot be shown here" not in out
    assert "before each of 12 native loads alone 0.2% of the file" in out and "pictures: 1 in pics" in out
    paper_view.show(Settings(format="tsv"), reports.report(), "r.json", [])
    assert capsys.readouterr().out.startswith("CLAIM\tPAPER\tVALUE\tVERDICT\nsmall-latency\t")
    paper_view.show(Settings(quiet=True), reports.report(), "r.json", [])
    assert capsys.readouterr().out.splitlines()[0] == "small-latency"
