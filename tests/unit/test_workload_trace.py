"""The request-trace file: what is written is what is read, bad files are named by line, a torn end loses nothing."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import BadInput
from trims.workload import trace
from trims.workload.outcomes import FAILED, HIT, JOINED, LOADED
from trims.workload.traced import REQUEST, Trace, TracedClient, TracedModel

SECONDS = st.floats(0, 1e7).map(lambda x: round(x, 6))
WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
MODELS = st.builds(
    TracedModel, WORDS, WORDS, st.integers(0, 1 << 60), st.integers(0, 1 << 30), variant=WORDS, place=WORDS
)
CLIENTS = st.builds(TracedClient, st.integers(0, 1 << 22), WORDS)


def rows(*values: tuple[float, int, int, int, float, float]) -> np.ndarray:
    return np.array(list(values), dtype=REQUEST)


@st.composite
def traces(draw):
    models, clients = draw(st.lists(MODELS, min_size=1, max_size=4)), draw(st.lists(CLIENTS, min_size=1, max_size=4))
    one = st.tuples(
        SECONDS, st.integers(0, len(clients) - 1), st.integers(0, len(models) - 1), st.integers(0, 4),
        SECONDS, SECONDS | st.just(math.nan),
    )  # fmt: skip
    requests = rows(*sorted(draw(st.lists(one, max_size=20)), key=lambda row: row[0]))
    seconds = draw(SECONDS.filter(bool))
    about = draw(st.dictionaries(WORDS.filter(lambda w: w not in ("format", "kind", "started")), st.integers()))
    return Trace(draw(WORDS), tuple(models), tuple(clients), requests, seconds, draw(st.integers(0, 9)), about)


def written(found: Trace) -> bytes:
    file = io.BytesIO()
    trace.write(found, file)
    return file.getvalue()


def read(data: bytes) -> Trace:
    return trace.read(io.BytesIO(data), "t.jsonl")


@given(traces())
def test_what_is_written_is_read(found):
    assert read(written(found)) == found


@given(traces(), st.data())
def test_a_file_cut_anywhere_is_a_shorter_trace_or_none(found, data):
    whole = written(found)
    head = whole.index(b"\n") + 1
    cut = data.draw(st.integers(0, len(whole)))
    if cut < head:
        with pytest.raises(BadInput):
            read(whole[:cut])
    else:
        assert len(read(whole[:cut])) <= len(found)


def test_lines_may_come_in_any_order_and_are_sorted_by_arrival():
    lines = [trace.header("2026-01-01T00:00:00Z"), trace.line(trace.Entry(client=TracedClient(1)))]
    lines += [trace.line(trace.Entry(model=TracedModel("m", "d"))), trace.line(trace.row(2.0, 0, 0, HIT, 0.5, 1.0))]
    lines += [trace.line(trace.row(1.0, 0, 0, LOADED, 0.25, None)), trace.line(trace.Entry(lost=3))]
    found = read(b"".join(lines))
    assert found.requests["at"].tolist() == [1.0, 2.0]
    assert (found.seconds, found.lost) == (3.5, 3)
    assert not found.requests.flags.writeable


HEAD = b'{"format":"trims.trace/1","kind":"requests","started":"x"}\n'
TABLES = b'{"model":{"name":"m","digest":"d"}}\n{"client":{"pid":1}}\n'


@pytest.mark.parametrize(
    "data, says",
    [
        (b"", "no whole line"),
        (b"\x7fELF\n", "line 1 is no header"),
        (b'{"format":"trims.trace/2"}\n', "line 1 says trims.trace/2"),
        (b'{"format":"trims.trace/1","kind":"spans","started":"x"}\n', "line 1 is no header"),
        (HEAD + TABLES + b"[0,0,0,0,0,0]\nhello\n", "line 5 is none of a trace"),
        (HEAD + TABLES + b"\n[0,0,0,0]\n", "line 5 is none of a trace"),
        (HEAD + TABLES + b"[0,0,0,0]\n", "line 4 is none of a trace"),
        (HEAD + TABLES + b'[0,0,0,"hit",0,0]\n', "line 4 is none of a trace"),
        (HEAD + TABLES + b"[0,0,1,0,0,0]\n", "line 4 has a number out of range"),
        (HEAD + TABLES + b"[0,1,0,0,0,0]\n", "line 4 has a number out of range"),
        (HEAD + TABLES + b"[0,0,99999999999,0,0,0]\n", "line 4 has a number out of range"),
        (HEAD + TABLES + b"[-1,0,0,0,0,0]\n", "line 4 has a number out of range"),
        (HEAD + TABLES + b"[0,0,0,9,0,0]\n", "line 4 has a number out of range"),
        (HEAD + TABLES + b"[0,0,0,0,0,-3]\n", "line 4 has a number out of range"),
        (HEAD + b'{"model":{"name":"m","nbytes":-1}}\n', "line 2 has a number out of range"),
        (HEAD + b'{"lost":-1}\n', "line 2 has a number out of range"),
        (HEAD + b"[" * 100_000 + b"\n", "line 2 is none of a trace"),
        (HEAD + b"x" * ((5 << 20) + 1), "line 2 is over 1 MiB"),
    ],
)
def test_a_bad_file_is_one_line_with_the_number_of_the_bad_one(data, says):
    with pytest.raises(BadInput, match=says) as caught:
        read(data)
    assert "\n" not in str(caught.value) and caught.value.exit_code == 16 and "t.jsonl" in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_trace_or_bad_input(data):
    for begin in (b"", HEAD, HEAD + TABLES):
        try:
            read(begin + data)
        except BadInput:
            pass


def test_a_stream_asks_again_for_what_the_store_had():
    models = (
        TracedModel("a:1", "aa", 10, 2), TracedModel("gone"), TracedModel("a:1", "bb", 20, 3),
        TracedModel("a:1", "aa", 11, 2, variant="ort"),
    )  # fmt: skip
    requests = rows(
        (0, 0, 0, LOADED, 1, 5), (1, 1, 1, FAILED, 0, math.nan), (2, 1, 2, LOADED, 1, 1), (3, 2, 3, HIT, 0, 9)
    )
    found = Trace("x", models, tuple(TracedClient(n) for n in range(3)), requests)
    stream = found.stream()
    assert [m.name for m in stream.models] == ["a:1", "a:1@bb"]
    assert (stream.model.tolist(), stream.at.tolist()) == ([0, 1, 0], [0.0, 2.0, 3.0])
    assert found.stream(closed=True).at is None
    assert found.stream(closed=True, clients=7).clients == 7
    assert len(Trace("x", models, (), rows()).stream()) == 0


def test_the_peak_counts_who_is_there_at_once():
    clients = (TracedClient(1),)
    relay = rows((0, 0, 0, HIT, 0, 2), (2, 0, 0, HIT, 0, 2))  # one comes as the other goes
    assert Trace("x", (TracedModel("m", "d"),), clients, relay).peak() == 2
    requests = rows(
        (0, 0, 0, LOADED, 1, 1), (2, 0, 0, JOINED, 0, 1), (2.5, 0, 0, HIT, 0, 1), (9, 0, 0, HIT, 0, math.nan)
    )
    assert Trace("x", (TracedModel("m", "d"),), clients, requests).peak() == 2
    later = rows(
        (0, 0, 0, HIT, 0, math.nan), (5, 0, 0, HIT, 0, math.nan), (5, 0, 0, FAILED, 0, math.nan), (9, 0, 0, HIT, 0, 1)
    )
    assert Trace("x", (TracedModel("m", "d"),), clients, later).peak() == 3
