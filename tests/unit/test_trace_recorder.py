"""The recorder: records to lines, with what was lost said, and a file that ends with a whole line whatever happens."""

from __future__ import annotations

import io
import math
import os
import resource

import pytest

from trims.client.records import Cursor
from trims.errors import TrimsError, UsageError
from trims.workload import trace
from trims.workload.outcomes import FAILED, HIT
from trims.workload.traced import TracedModel
from trims_cli.tracing import Output, Recorder


def request(arrived, answered, how="hit", lease=0, conn=1, ref="m", verb="attach", **more):
    fields = {"digest": "d", "variant": "raw", "place": "host", "nbytes": 8, "pid": 7, "job": "", "code": ""}
    times = {"arrived": arrived, "answered": answered, "looked_up": None}
    return {
        "kind": "request",
        "verb": verb,
        "conn": conn,
        "ref": ref,
        "how": how,
        "lease": lease,
        **fields,
        **times,
        **more,
    }


def describe(ref, digest, variant, place, nbytes):
    return TracedModel(ref, digest, nbytes, 3, variant, place)


def recorded(*turns, began=10.0, end=20.0, lost=0):
    recorder = Recorder(began, describe)
    lines = [trace.header("2026-01-01T00:00:00Z"), *(recorder.lines(turn, lost) for turn in turns), recorder.end(end)]
    return trace.read(io.BytesIO(b"".join(lines))), recorder


def test_a_request_is_written_when_its_lease_ends():
    found, recorder = recorded([request(11, 11.5, lease=4)], [{"kind": "release", "lease": 4, "at": 13.5}])
    assert found.requests.tolist() == [(1.0, 0, 0, HIT, 0.5, 2.0)]
    assert (found.seconds, recorder.requests, recorder.held) == (10.0, 1, 0)


def test_what_is_held_at_the_end_has_no_length_and_failures_have_none():
    found, recorder = recorded([request(12, 12, lease=4), request(11, 11, "failed", digest="", code="no-such-model")])
    assert found.requests["how"].tolist() == [FAILED, HIT] and recorder.held == 1
    assert all(map(math.isnan, found.requests["held"]))


def test_only_attaches_that_came_in_time_are_recorded_each_client_and_model_once():
    turn = [
        request(9.9, 10.5, lease=1),
        request(11, 12, lease=2, verb="warm"),
        {"kind": "release", "lease": 1, "at": 12},
    ]
    found, recorder = recorded(
        [*turn, request(12, 12, lease=3), request(13, 13, lease=4), request(14, 14, conn=2, ref="n")]
    )
    assert (len(found), recorder.models, recorder.clients) == (3, 2, 2)
    assert [m.name for m in found.models] == ["m", "n"] and found.models[0].tensors == 3


def test_what_was_lost_is_said_once():
    found, recorder = recorded([], [request(11, 11)], lost=30)
    assert (found.lost, recorder.lost) == (30, 30)


def test_the_end_of_a_full_disk_is_a_whole_line(tmp_path):
    path = tmp_path / "t"
    out = Output(str(path), force=False)
    out.write(b"x" * 4000 + b"\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(TrimsError, match="writing"):
            out.write(b"y" * 4000 + b"\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    out.write(b"z\n")
    out.close()
    assert path.read_bytes() == b"x" * 4000 + b"\n" + b"z\n"


def test_a_pipe_is_written_to_and_a_file_that_is_there_is_not(tmp_path):
    os.mkfifo(tmp_path / "p")
    reader = os.open(tmp_path / "p", os.O_RDONLY | os.O_NONBLOCK)
    out = Output(str(tmp_path / "p"), force=False)
    out.write(b"line\n")
    out.close()
    assert os.read(reader, 100) == b"line\n"
    os.close(reader)
    (tmp_path / "f").write_bytes(b"old")
    with pytest.raises(UsageError, match="--force"):
        Output(str(tmp_path / "f"), force=False)
    Output(str(tmp_path / "f"), force=True).close()
    assert (tmp_path / "f").read_bytes() == b""


class Pages:
    """The manager's side of a cursor: answers that were thought out beforehand."""

    def __init__(self, *pages):
        self._pages, self.asked = list(pages), []

    def request(self, t, wait, after):
        assert t == "trace"
        self.asked.append(after)
        number, lost, more, *records = self._pages.pop(0)
        return [{"next": number, "lost": lost, "now": float(number), "more": more}, *records]


def test_a_cursor_goes_on_where_it_was_and_adds_up_what_was_lost():
    pages = Pages((50, 0, False), (60, 5, True, {"kind": "a"}), (61, 0, False, {"kind": "b"}), (70, 2, False))
    cursor = Cursor(pages, -1)
    assert [r["kind"] for r in cursor.take()] == ["a", "b"]
    assert (cursor.lost, cursor.now) == (5, 61.0)
    assert cursor.take() == [] and cursor.lost == 7
    assert pages.asked == [-1, 50, 60, 61]
