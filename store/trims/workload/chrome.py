"""Spans as Chrome's Trace Event Format, the JSON that ui.perfetto.dev and chrome://tracing open.

Source of the format: "Trace Event Format" (Google, the document behind chrome://tracing), its JSON Object form. Used
are X (a span with its length), i (an instant), C (counters) and M (names and order of processes and rows).

Times are seconds of any one clock; with CLOCK_MONOTONIC of the machine, spans of several processes share one time line.
They are written in microseconds with three decimals, and are rounded to whole nanoseconds before they are subtracted,
so that a span which lies within another still does after rounding. A row is drawn as a stack: its spans have to nest.
`untangle` gives spans that overlap without nesting rows of their own.

Writing streams: `write` takes any iterable and holds names of rows, never events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took from `begin` to `end` (seconds, end >= begin), drawn in `row` of `process`.

    category: words with commas, which viewers filter by. args: plain JSON values, shown when the span is clicked.
    """

    name: str
    category: str
    begin: float
    end: float
    process: str
    row: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Instant:
    """Something that happened at one time, drawn as a mark in `row` of `process`."""

    name: str
    category: str
    at: float
    process: str
    row: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Counter:
    """Values of a quantity from `at` on, drawn as a graph of `process`; several values are stacked."""

    name: str
    at: float
    process: str
    values: Mapping[str, float]


Event = Span | Instant | Counter


def write(events: Iterable[Event], origin: float = 0.0, about: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The document, in pieces to be written one after another; ASCII. Valid also without any event.

    origin: the time that becomes 0. about: plain JSON values kept as the document's `otherData`.
    Raises ValueError for times that are not finite, or a span that ends before it begins.
    """
    yield '{"displayTimeUnit":"ms","otherData":' + _json(about or {}) + ',"traceEvents":['
    rows = _Rows()
    comma = "\n"
    for event in events:
        if isinstance(event, Counter) and not any(map(math.isfinite, event.values.values())):
            continue  # it says nothing
        for line in (*rows.introduce(event), _line(event, rows, origin)):
            yield comma + line
            comma = ",\n"
    yield "\n]}\n"


def untangle(spans: Iterable[Span]) -> list[Span]:
    """The spans in order of begin, each in its row where it nests there, else in `ROW (2)`, `ROW (3)`, ...

    Two spans nest when one lies within the other or they do not overlap; O(n log n) for rows with few overlaps.
    """
    lanes: dict[tuple[str, str], list[list[float]]] = {}
    found: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.begin, -s.end)):
        stacks = lanes.setdefault((span.process, span.row), [])
        number = _lane(stacks, span)
        stacks[number].append(span.end)
        found.append(span if not number else replace(span, row=f"{span.row} ({number + 1})"))
    return found


def _lane(stacks: list[list[float]], span: Span) -> int:
    """The first lane where the span nests; a new one when there is none. A lane: the ends of what is open in it."""
    for number, stack in enumerate(stacks):
        while stack and stack[-1] <= span.begin:
            stack.pop()
        if not stack or span.end <= stack[-1]:
            return number
    stacks.append([])
    return len(stacks) - 1


class _Rows:
    """Numbers for processes and rows, in order of appearance: the format knows them by number, and names them aside."""

    def __init__(self) -> None:
        self._processes: dict[str, int] = {}
        self._rows: dict[tuple[str, str], int] = {}

    def introduce(self, event: Event) -> Iterator[str]:
        """The M events that name what this event is the first of."""
        process = event.process
        if process not in self._processes:
            number = self._processes[process] = len(self._processes) + 1
            yield _name("process_name", number, 0, {"name": process})
            yield _name("process_sort_index", number, 0, {"sort_index": number})
        if not isinstance(event, Counter) and (process, event.row) not in self._rows:
            pid, row = self._processes[process], len(self._rows) + 1
            self._rows[process, event.row] = row
            yield _name("thread_name", pid, row, {"name": event.row})
            yield _name("thread_sort_index", pid, row, {"sort_index": row})

    def of(self, event: Span | Instant) -> tuple[int, int]:
        return self._processes[event.process], self._rows[event.process, event.row]

    def process(self, event: Counter) -> int:
        return self._processes[event.process]


def _name(what: str, pid: int, tid: int, args: Mapping[str, Any]) -> str:
    return _json({"ph": "M", "name": what, "pid": pid, "tid": tid, "args": args})


def _line(event: Event, rows: _Rows, origin: float) -> str:
    if isinstance(event, Counter):
        at = _microseconds(_nanoseconds(event.at - origin))
        values = {name: value for name, value in event.values.items() if math.isfinite(value)}
        head = f'{{"ph":"C","ts":{at},"pid":{rows.process(event)},"tid":0,'
        return head + f'"name":{_json(event.name)},"args":{_json(values)}}}'
    pid, tid = rows.of(event)
    names = f'"pid":{pid},"tid":{tid},"name":{_json(event.name)},"cat":{_json(event.category)}'
    args = f',"args":{_json(event.args)}' if event.args else ""
    if isinstance(event, Instant):
        return f'{{"ph":"i","s":"t","ts":{_microseconds(_nanoseconds(event.at - origin))},{names}{args}}}'
    begin, end = _nanoseconds(event.begin - origin), _nanoseconds(event.end - origin)
    if end < begin:
        raise ValueError(f"span {event.name!r} ends before it begins")
    return f'{{"ph":"X","ts":{_microseconds(begin)},"dur":{_microseconds(end - begin)},{names}{args}}}'


def _nanoseconds(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError("a time of a trace is no number")
    return round(seconds * _NS)


def _microseconds(nanoseconds: int) -> str:
    sign = "-" if nanoseconds < 0 else ""
    whole, part = divmod(abs(nanoseconds), 1000)
    return f"{sign}{whole}.{part:03d}" if part else f"{sign}{whole}"


def _json(value: Any) -> str:
    """Compact ASCII JSON; a number that is none becomes null, what is no JSON its text."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
