"""The manager's records as a time line: each phase where it belongs, and no record that makes an invalid document."""

from __future__ import annotations

import pytest
from helpers import chrome_rules
from hypothesis import given
from hypothesis import strategies as st

from trims.workload.chrome import Counter, Instant, Span, write
from trims.workload.timeline import CLIENTS, MANAGER, events

MODEL = {"ref": "m:latest", "digest": "d", "variant": "raw", "place": "host", "nbytes": 4096}


def request(arrived, answered, how="hit", *, looked_up=None, lease=0, conn=3, code=""):
    who = {"conn": conn, "id": 1, "pid": 77, "job": "9"}
    times = {"arrived": arrived, "looked_up": looked_up, "answered": answered}
    return {"kind": "request", "verb": "attach", **who, **MODEL, **times, "how": how, "code": code, "lease": lease}


def load(queued, began, read, sealed, ended, code=""):
    times = {"queued": queued, "began": began, "read": read, "sealed": sealed, "ended": ended}
    return {"kind": "load", "load": 1, **MODEL, **times, "code": code}


def release(lease, at):
    return {"kind": "release", "lease": lease, "at": at}


def spans(*records, now=100.0):
    return {e.name: (e.begin, e.end) for e in events(records, now) if isinstance(e, Span)}


def test_a_request_that_waited_shows_what_for():
    found = spans(load(3, 4, 5, 6, 7), request(1, 8, "loaded", looked_up=2, lease=5), release(5, 9))
    assert found == {
        "load m:latest": (3, 7), "queued": (3, 4), "reading": (4, 5), "sealing": (5, 6), "handing over": (6, 7),
        "attach m:latest": (1, 8), "looking up": (1, 2), "waiting for room": (2, 3), "waiting for the load": (3, 8),
        "lease of m:latest": (8, 9),
    }  # fmt: skip


def test_one_that_joined_waits_only_for_what_was_left_of_the_load():
    found = spans(load(1, 1, 5, 6, 7), request(4, 8, "joined", lease=5))
    assert found["waiting for the load"] == (4, 8) and "waiting for room" not in found


def test_a_warm_waits_like_an_attach():
    found = spans(load(3, 4, 5, 6, 7), request(1, 8, "warmed"))
    assert (found["waiting for room"], found["waiting for the load"]) == ((1, 3), (3, 8))
    assert "waiting for the load" not in spans(load(3, 4, 5, 6, 7), request(1, 8, "already"))


def test_a_lease_without_an_end_lasts_until_now_and_an_end_without_a_lease_is_passed_over():
    assert spans(request(1, 2, lease=5), release(4, 3))["lease of m:latest"] == (2, 100)


def test_a_load_that_failed_stops_where_it_came_to():
    found = spans(load(1, 2, None, None, 3, code="damaged"))
    assert found == {"load m:latest": (1, 3), "queued": (1, 2), "reading": (2, 3)}
    assert spans(load(1, None, None, None, 3, code="failed"))["queued"] == (1, 3)


def test_evictions_are_marks_with_their_reasons_and_use_is_a_graph():
    evict = {"kind": "evict", **MODEL, "at": 5.0, "what": "evicted", "why": "room for n", "by": "", "policy": "lru",
             "rank": 1, "of": 2}  # fmt: skip
    mark, graph = events([evict, {"kind": "use", "place": "host", "used": 9, "at": 6.0}], 7.0)
    assert isinstance(mark, Instant) and (mark.at, mark.process, mark.row) == (5.0, MANAGER, "host: evictions")
    assert mark.args == {
        "model": "m:latest", "bytes": 4096, "what": "evicted", "why": "room for n", "policy": "lru", "rank": 1, "of": 2,
    }  # fmt: skip
    assert graph == Counter("bytes used, host", 6.0, MANAGER, {"used": 9})


def test_rows_are_connections_with_their_processes():
    (span,) = events([request(1, 2)], 3.0)
    assert (span.process, span.row, span.category) == (CLIENTS, "pid 77, job 9, connection 3", "request,hit")


TIME = st.floats(0, 100)
RECORDS = st.one_of(
    st.builds(
        request, TIME, TIME, st.sampled_from(("hit", "joined", "loaded", "failed")), looked_up=st.none() | TIME,
        lease=st.integers(0, 4), conn=st.integers(1, 2),
    ),
    st.builds(load, TIME, st.none() | TIME, st.none() | TIME, st.none() | TIME, TIME),
    st.builds(release, st.integers(0, 4), TIME),
)  # fmt: skip


@given(st.lists(RECORDS, max_size=12))
def test_whatever_was_recorded_the_document_is_valid_and_in_order(records):
    found = events(records, 100.0)
    chrome_rules.check("".join(write(found)))
    begins = [e.begin if isinstance(e, Span) else e.at for e in found]
    assert begins == sorted(begins)


@pytest.mark.parametrize("now", (0.0, 50.0))
def test_a_clock_that_seems_to_go_back_makes_no_negative_span(now):
    chrome_rules.check("".join(write(events([request(60, 55, lease=2), load(9, 8, 7, 6, 5)], now))))
