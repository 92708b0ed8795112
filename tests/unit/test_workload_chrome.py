"""Chrome traces: valid whatever is written, whole names, honest times, and rows whose spans nest."""

from __future__ import annotations

import json
import math

import pytest
from helpers import chrome_rules
from hypothesis import given
from hypothesis import strategies as st

from trims.workload.chrome import Counter, Instant, Span, untangle, write

TIMES = st.floats(0, 1e6, allow_nan=False)
NAMES = st.text(max_size=8)
ARGS = st.dictionaries(NAMES, st.none() | st.booleans() | st.integers() | st.floats() | NAMES, max_size=2)


@st.composite
def spans(draw):
    begin = draw(TIMES)
    end = begin + draw(st.floats(0, 10))
    process, row = draw(st.sampled_from("ab")), draw(st.sampled_from("xyz"))
    return Span(draw(NAMES), draw(NAMES), begin, end, process, row, draw(ARGS))


INSTANTS = st.builds(Instant, NAMES, NAMES, TIMES, st.sampled_from("ab"), st.sampled_from("xyz"), ARGS)
COUNTERS = st.builds(Counter, NAMES, TIMES, st.sampled_from("ab"), st.just({"used": 1, "free": 2.5}))


@given(st.lists(spans(), max_size=12), st.lists(INSTANTS | COUNTERS, max_size=6))
def test_any_events_make_a_valid_document(found, others):
    events = chrome_rules.check("".join(write([*untangle(found), *others])))
    assert sum(e["ph"] == "X" for e in events) == len(found)
    assert sum(e["ph"] in "iC" for e in events) == len(others)


def test_nothing_is_a_valid_document_too():
    assert chrome_rules.check("".join(write([]))) == []


def test_times_are_microseconds_after_the_origin_and_rows_have_their_names():
    span = Span("attach m", "request", 100.0000015, 100.25, "manager", "pid 7", {"bytes": 3})
    events = chrome_rules.check("".join(write([span, Instant("evict m", "evict", 100.5, "manager", "host")], 100.0)))
    (found,) = chrome_rules.rows(events)["manager", "pid 7"]
    assert (found["ts"], found["dur"]) == (1.5, 249998.5)
    assert (found["name"], found["cat"], found["args"]) == ("attach m", "request", {"bytes": 3})
    (mark,) = chrome_rules.rows(events)["manager", "host"]
    assert (mark["ts"], mark["s"]) == (500000, "t")


def test_what_is_known_of_the_whole_is_kept():
    document = json.loads("".join(write([], about={"machine": "n1"})))
    assert document["otherData"] == {"machine": "n1"}


def test_numbers_that_are_none_are_null_or_left_out():
    found = [Span("s", "", 0, 1, "p", "r", {"a": math.nan, "b": [math.inf, {"c": -math.inf}], "d": b"x"})]
    counters = [Counter("n", 1, "p", {"x": math.nan, "y": 2.0}), Counter("n", 2, "p", {"x": math.nan})]
    events = chrome_rules.check("".join(write([*found, *counters])))
    assert [e["args"] for e in events if e["ph"] in "XC"] == [
        {"a": None, "b": [None, {"c": None}], "d": "b'x'"},
        {"y": 2.0},
    ]


def test_spans_that_overlap_get_rows_of_their_own_and_those_that_nest_do_not():
    outer, inner = Span("o", "", 0, 10, "p", "r"), Span("i", "", 2, 3, "p", "r")
    across, after = Span("a", "", 5, 12, "p", "r"), Span("f", "", 12, 13, "p", "r")
    assert [(s.name, s.row) for s in untangle([after, across, inner, outer])] == [
        ("o", "r"), ("i", "r"), ("a", "r (2)"), ("f", "r"),
    ]  # fmt: skip
    with pytest.raises(AssertionError, match="without nesting"):
        chrome_rules.check("".join(write([outer, across])))


@pytest.mark.parametrize("begin, end", [(1.0, 0.5), (0.0, math.inf), (math.nan, 1.0)])
def test_a_span_that_cannot_be_is_refused(begin, end):
    with pytest.raises(ValueError):
        "".join(write([Span("s", "", begin, end, "p", "r")]))


def test_writing_streams():
    pieces = write(Span(str(n), "", n, n + 1, "p", "r") for n in iter(int, 1))  # without end
    assert [next(pieces)[:1] for _ in range(3)] == ["{", "\n", ","]
