"""The report as a value: through JSON and back, what it lacks, what keeps two apart."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import reports
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import BadInput
from trims.workload import report as reporting
from trims.workload import report_file
from trims.workload.report import Alone, Key, Times
from trims.workload.setting import Coldness


def test_json_and_back_is_the_same_report() -> None:
    made = reports.report()
    assert reporting.from_json(reporting.to_json(made)) == made
    assert json.loads(reporting.to_json(made))["schema"] == "trims.workload/1"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    report_file.write(str(path), "x")
    assert os.read(reader, 10) == b"x" and path.is_fifo()
    os.close(reader)


def test_no_directory_of_this_machine_is_kept() -> None:
    made = reports.report()
    built = replace(made, models=(replace(made.models[0], file="/home/ann/zoo/a.onnx"), *made.models[1:]))
    assert "ann" not in reporting.to_json(built)
    assert reporting.from_json(reporting.to_json(built)).models[0].file == "a.onnx"


def test_a_figure_that_does_not_exist_is_null_and_comes_back() -> None:
    nothing = reports.summary(mean=math.nan)
    made = reports.report(cells=(reports.cell(ratio=None, trims=nothing),))
    text = reporting.to_json(made)
    assert "NaN" not in text
    back = reporting.from_json(text).cells[0]
    assert math.isnan(back.trims.mean) and back.native is None


@given(st.integers(0, 4000), st.sampled_from(["", "x", "[]", "null", '"a"', "{", "\x00"]))
def test_a_damaged_file_is_one_error(cut: int, put: str) -> None:
    text = reporting.to_json(reports.report(cells=reports.grid()[:1]))
    damaged = text[:cut] + put
    try:
        reporting.from_json(damaged, "here")
    except BadInput as error:
        assert str(error).startswith("here cannot be read: ") and error.exit_code == 16
    else:
        assert json.loads(damaged)


@pytest.mark.parametrize("name", ["made", "cells", "machine", "models", "partial"])
def test_a_missing_part_is_named(name: str) -> None:
    document = json.loads(reporting.to_json(reports.report()))
    del document[name]
    with pytest.raises(BadInput, match=f"'{name}' is missing"):
        reporting.from_json(json.dumps(document))


def test_another_version_is_refused() -> None:
    text = reporting.to_json(reports.report()).replace("trims.workload/1", "trims.workload/9")
    with pytest.raises(BadInput, match="workload/9"):
        reporting.from_json(text)


def test_what_is_missing_and_what_replaces() -> None:
    made = reports.report(cells=reports.grid()[:2])
    have = [reporting.key(cell) for cell in made.cells]
    other = Key(0.9, 3, "uniform", "lru")
    assert reporting.missing(made, [*have, other]) == (other,)
    again = reports.cell(have[0].share, have[0].clients, 2.5)
    after = made.with_cell(again)
    assert len(after.cells) == 2 and {c.batch_ratio for c in after.cells} == {2.5, made.cells[1].batch_ratio}


def test_differences_of_configurations() -> None:
    made = reports.report()
    assert reporting.differences(made, made.configuration) == []
    assert reporting.differences(made, {**made.configuration, "set": "paper", "seed": 3}) == [
        "set is quick there and paper here",
        "seed is None there and 3 here",
    ]
    lists = replace(made, configuration={"shares": [0.1, 1.0]})
    assert reporting.differences(lists, {"shares": (0.1, 1.0)}) == []


def test_maps_are_of_one_distribution_and_policy() -> None:
    made = reports.report().with_cell(reports.cell(policy="lfu")).with_cell(reports.cell(distribution="uniform"))
    assert len(made.of()) == len(reports.grid())
    assert [c.policy for c in made.of(policy="lfu")] == ["lfu"]
    assert made.of(distribution="zipf") == ()


def test_alone_grows_side_by_side() -> None:
    one, two = Times(1.0, 0.5, 3), Times(2.0, 1.5, 3)
    made = reports.report(alone=()).with_alone(Alone("vgg", native_cold=two)).with_alone(Alone("vgg", hit=one))
    assert made.alone == (Alone("vgg", native_cold=two, hit=one),)
    assert made.alone[0].native("cold") == two and made.alone[0].native("warm") is None


def test_coldness_of_all_loads_together() -> None:
    first, second = Coldness("cold", 0.0, 0.25, 0.5, 2), Coldness("cold", 0.1, 0.1, 0.1, 1)
    found = reporting.together(first, second)
    assert found is not None and (found.least, found.most, found.looks) == (0.0, 0.5, 3)
    assert found.mean == pytest.approx(0.2) and not found.proven
    assert reporting.together(None, second) == reporting.together(second, None) == second


def test_csv_has_a_row_a_cell() -> None:
    made = reports.report()
    rows = list(csv.DictReader(io.StringIO(reporting.to_csv(made))))
    assert len(rows) == len(made.cells)
    first = made.cells[0]
    assert float(rows[0]["share"]) == first.share and float(rows[0]["trims_p99"]) == first.trims.p99
    assert float(rows[0]["native_seconds"]) == pytest.approx(10.0 * (first.batch_ratio or 0))


def test_oversubscription_counts_small_models_only() -> None:
    assert reports.report().oversubscription == 2.0
    assert reports.report(cells=()).oversubscription is None
