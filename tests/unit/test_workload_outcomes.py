"""Rows of what came of each request: their helpers, what they refuse, and two forms on disk."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import BadInput
from trims.workload import outcomes as rows
from trims.workload.outcomes import FAILED, HIT, HOW, LOADED, NATIVE, OUTCOME, Outcomes

NAN = math.nan


def table(*given_: tuple[float, ...]) -> Outcomes:
    """Rows of (request, client, model, how, asked, began, ready, done)."""
    return np.array(list(given_), dtype=OUTCOME)


GOOD = table(
    (0, 0, 1, HIT, 0.0, 0.1, 0.3, 0.6),
    (1, 1, 0, LOADED, 0.5, 0.5, 2.0, 2.5),
    (2, 0, 2, FAILED, 0.6, NAN, NAN, 0.7),
)


@st.composite
def outcomes(draw: st.DrawFn) -> Outcomes:
    seconds = st.floats(0, 1e9)
    made = []
    for request in range(draw(st.integers(0, 8))):
        how = draw(st.integers(0, len(HOW) - 1))
        times = sorted(draw(st.lists(seconds, min_size=4, max_size=4)))
        if how == FAILED and draw(st.booleans()):
            times[1:3] = [NAN, NAN]
        made.append((request, draw(st.integers(0, 9)), draw(st.integers(0, 2**31 - 1)), how, *times))
    return table(*made) if made else rows.empty()


def test_times_of_a_request() -> None:
    np.testing.assert_allclose(rows.latency(GOOD), [0.6, 2.0, 0.1])
    np.testing.assert_allclose(rows.wait(GOOD), [0.1, 0.0, NAN])
    np.testing.assert_allclose(rows.ready(GOOD), [0.3, 1.5, NAN])
    assert rows.ok(GOOD).tolist() == [True, True, False]
    assert OUTCOME.itemsize == 45


def test_parts_of_several_clients_join_in_order_of_request() -> None:
    joined = rows.join([GOOD[[2]], GOOD[[0]], rows.empty(), GOOD[[1]]])
    assert joined.tobytes() == GOOD.tobytes()
    assert len(rows.join([])) == 0 and rows.join([]).dtype == OUTCOME


@given(outcomes())
def test_both_forms_give_back_the_same_rows(made: Outcomes) -> None:
    rows.validate(made)
    assert rows.from_lines(rows.to_lines(made)).tobytes() == made.tobytes()
    assert rows.from_bytes(rows.to_bytes(made)).tobytes() == made.tobytes()


def test_a_line_is_plain_json() -> None:
    assert list(rows.to_lines(GOOD))[2] == (
        '{"request":2,"client":0,"model":2,"how":"failed","asked":0.6,"began":null,"ready":null,"done":0.7}'
    )


def test_a_torn_last_line_is_left_out_and_any_other_is_not() -> None:
    lines = list(rows.to_lines(GOOD))
    assert rows.from_lines([*lines, lines[0][:30]]).tobytes() == GOOD.tobytes()
    assert rows.from_lines([*lines, ""]).tobytes() == GOOD.tobytes()
    with pytest.raises(BadInput, match=r"report\.jsonl cannot be read: line 2 is no outcome"):
        rows.from_lines([lines[0], lines[1][:30], lines[2]], what="report.jsonl")
    for bad in ("[1]", "7", '{"request":0}', lines[0].replace('"hit"', '"maybe"')):
        with pytest.raises(BadInput, match="line 1 is no outcome"):
            rows.from_lines([bad, lines[1]])
    with pytest.raises(BadInput, match="a number is too large"):
        rows.from_lines([lines[0].replace('"model":1', '"model":99999999999')])


def test_bytes_that_are_no_rows_are_refused() -> None:
    other = io.BytesIO()
    np.save(other, np.zeros(3))
    for bad in (b"", b"x" * 40, rows.to_bytes(GOOD)[:-1], rows.to_bytes(GOOD)[:9], other.getvalue()):
        with pytest.raises(BadInput, match="run 3 cannot be read"):
            rows.from_bytes(bad, what="run 3")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ((-1, 0, 0, HIT, 0, 0, 0, 0), "is negative"),
        ((0, -1, 0, HIT, 0, 0, 0, 0), "is negative"),
        ((0, 0, -1, HIT, 0, 0, 0, 0), "is negative"),
        ((0, 0, 3, HIT, 0, 0, 0, 0), "a model that is not there"),
        ((0, 0, 0, 5, 0, 0, 0, 0), "no known way"),
        ((0, 0, 0, HIT, NAN, 0, 0, 0), "not numbers"),
        ((0, 0, 0, FAILED, 0, 0, 0, math.inf), "not numbers"),
        ((0, 0, 0, HIT, 1, 0, 2, 3), "out of order"),
        ((0, 0, 0, HIT, 0, 2, 1, 3), "out of order"),
        ((0, 0, 0, NATIVE, 0, 1, 3, 2), "out of order"),
        ((0, 0, 0, HIT, 0, NAN, NAN, 3), "out of order"),
        ((0, 0, 0, FAILED, 2, NAN, NAN, 1), "out of order"),
    ],
)
def test_a_row_that_cannot_be_is_named(row: tuple[float, ...], says: str) -> None:
    with pytest.raises(BadInput) as caught:
        rows.validate(rows.join([GOOD[:2], table(row)]) if row[0] < 0 else np.concatenate([GOOD, table(row)]), models=3)
    assert says in str(caught.value)
    assert ("row 0" if row[0] < 0 else "row 3") in str(caught.value)


def test_good_rows_pass_and_foreign_columns_do_not() -> None:
    rows.validate(GOOD, models=3)
    rows.validate(rows.empty(), models=0)
    with pytest.raises(BadInput, match="columns"):
        rows.validate(np.zeros(2, dtype=[("request", "i4")]))
