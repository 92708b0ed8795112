"""The rules of the Trace Event Format, as a check: what a viewer would refuse or draw wrongly fails here."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from typing import Any

_FIELDS = {
    "X": {"ph", "ts", "dur", "pid", "tid", "name", "cat", "args"},
    "i": {"ph", "ts", "s", "pid", "tid", "name", "cat", "args"},
    "C": {"ph", "ts", "pid", "tid", "name", "args"},
    "M": {"ph", "pid", "tid", "name", "args"},
}
_NAMES = {
    "process_name": ("name", str), "thread_name": ("name", str),
    "process_sort_index": ("sort_index", int), "thread_sort_index": ("sort_index", int),
}  # fmt: skip


def check(text: str) -> list[dict[str, Any]]:
    """The events of a document, in order. Fails where it breaks the format."""
    text.encode("ascii")
    document = json.loads(text, parse_constant=lambda word: _fail(f"{word} is no JSON"))
    assert isinstance(document["traceEvents"], list) and document["displayTimeUnit"] in ("ms", "ns")
    named: set[tuple[str, int, int]] = set()
    for event in document["traceEvents"]:
        _check_event(event)
        where = (event["name"], event["pid"], event["tid"])
        if event["ph"] == "M":
            assert where not in named, f"named twice: {event}"
            named.add(where)
        else:
            assert ("process_name", event["pid"], 0) in named, f"its process has no name yet: {event}"
            if event["ph"] != "C":
                assert ("thread_name", event["pid"], event["tid"]) in named, f"its row has no name yet: {event}"
    _check_nesting(document["traceEvents"])
    return document["traceEvents"]


def rows(events: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """(process, row): its spans and instants."""
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["ph"] in "Xi":
            found[processes[event["pid"]], names[event["pid"], event["tid"]]].append(event)
    return found


def _check_event(event: dict[str, Any]) -> None:
    kind = event["ph"]
    assert kind in _FIELDS, event
    assert set(event) <= _FIELDS[kind] and set(event) | {"args", "tid"} >= _FIELDS[kind], event
    assert isinstance(event["name"], str) and isinstance(event["pid"], int) and isinstance(event["tid"], int)
    assert isinstance(event.get("args", {}), dict)
    for field in ("ts", "dur"):
        if field in event:
            assert isinstance(event[field], int | float) and math.isfinite(event[field]), event
    assert event.get("dur", 0) >= 0, event
    if kind == "i":
        assert event["s"] in ("g", "p", "t")
    if kind == "C":
        assert event["args"] and all(type(value) in (int, float) for value in event["args"].values()), event
    if kind == "M":
        field, of = _NAMES[event["name"]]
        assert isinstance(event["args"][field], of), event


def _check_nesting(events: list[dict[str, Any]]) -> None:
    """Spans of one row lie within each other or apart: in whole nanoseconds, as they were written."""
    by_row: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            begin = round(event["ts"] * 1000)
            by_row[event["pid"], event["tid"]].append((begin, begin + round(event["dur"] * 1000)))
    for spans in by_row.values():
        open_ends: list[int] = []
        for begin, end in sorted(spans, key=lambda span: (span[0], -span[1])):
            while open_ends and open_ends[-1] <= begin:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1], "two spans of a row overlap without nesting"
            open_ends.append(end)


def _fail(why: str) -> Any:
    raise AssertionError(why)
