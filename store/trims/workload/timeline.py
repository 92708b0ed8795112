"""The manager's records as spans, instants and counters of one time line (see chrome).

Process "manager": for each place a row of loads (queued, reading, sealing inside each), one of memory being given back,
evictions as marks with their reasons, and a graph of bytes used. Process "clients": for each connection its requests
(looking up, waiting for room, waiting for the load inside each), and its leases.

Times stay what they were, seconds of CLOCK_MONOTONIC: spans that clients measured on it fall into place beside these.
A record that refers to one that is gone is shown as far as it goes: a lease whose grant is not there is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from trims.workload.chrome import Counter, Event, Instant, Span, untangle

MANAGER, CLIENTS = "manager", "clients"
Record = Mapping[str, Any]
_WAITED = ("joined", "loaded", "warmed")
"""How a request went that waited for a load: an attach by either of two ways, or a warm or pin."""


def events(records: Iterable[Record], now: float) -> list[Event]:
    """What the records show, in order of time; leases that last still end at `now`. Spans of each row nest.

    records: items of the manager's `trace` answers, oldest first (client.records.Cursor.take).
    """
    records = list(records)
    releases = {r["lease"]: r["at"] for r in records if r["kind"] == "release"}
    loads: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    spans: list[Span] = []
    marks: list[Event] = []
    for record in records:
        kind = record["kind"]
        if kind == "load":
            loads[_form(record)].append(record)
            spans += _load(record)
        elif kind == "request":
            spans += _request(record, loads[_form(record)], releases, now)
        elif kind == "free":
            spans.append(_manager(f"free {record['ref']}", "free", record["began"], record["ended"], record))
        elif kind == "evict":
            marks.append(_evict(record))
        elif kind == "use":
            marks.append(Counter(f"bytes used, {record['place']}", record["at"], MANAGER, {"used": record["used"]}))
    found: list[Event] = [*untangle(spans), *marks]
    return sorted(found, key=_begin)


def _begin(event: Event) -> tuple[float, float]:
    return (event.begin, -event.end) if isinstance(event, Span) else (event.at, 0.0)


def _form(record: Record) -> tuple[str, str, str]:
    return record["digest"], record["variant"], record["place"]


def _manager(name: str, category: str, begin: float, end: float, record: Record, **args: Any) -> Span:
    about = {"model": record["ref"], "variant": record["variant"], "bytes": record["nbytes"], **args}
    row = {"load": "loads", "free": "memory given back"}[category.partition(",")[0]]
    return Span(name, category, begin, max(begin, end), MANAGER, f"{record['place']}: {row}", about)


def _load(record: Record) -> list[Span]:
    """A load and its steps: each ends where the next begins; a load that failed stops at the step it came to."""
    queued, ended, code = record["queued"], record["ended"], record["code"]
    whole = {"load": record["load"], **({"error": code} if code else {})}
    found = [_manager(f"load {record['ref']}", "load", queued, ended, record, **whole)]
    begin = queued
    for name, field in (("queued", "began"), ("reading", "read"), ("sealing", "sealed")):
        end = record[field] if record[field] is not None else ended
        found.append(_manager(name, "load,step", begin, end, record))
        if record[field] is None:
            return found
        begin = end
    if ended > begin:
        found.append(_manager("handing over", "load,step", begin, ended, record))
    return found


def _request(record: Record, loads: list[Record], releases: Mapping[int, float], now: float) -> list[Span]:
    job = f", job {record['job']}" if record["job"] else ""
    row = f"pid {record['pid']}{job}, connection {record['conn']}"

    def span(name: str, category: str, begin: float, end: float, **args: Any) -> Span:
        return Span(name, category, begin, max(begin, end), CLIENTS, row, args)

    arrived, answered, verb = record["arrived"], record["answered"], record["verb"]
    about = {"model": record["ref"], "how": record["how"], "id": record["id"]}
    about |= {"error": record["code"]} if record["code"] else {"bytes": record["nbytes"]}
    found = [span(f"{verb} {record['ref']}".strip(), f"request,{record['how']}", arrived, answered, **about)]
    asked = arrived
    if record["looked_up"] is not None:
        asked = record["looked_up"]
        found.append(span("looking up", "request,step", arrived, asked))
    if record["how"] in _WAITED:
        load = next((x for x in reversed(loads) if x["ended"] <= answered), None)
        if load is not None and load["queued"] > asked:
            found.append(span("waiting for room", "request,step", asked, min(load["queued"], answered)))
            asked = min(load["queued"], answered)
        found.append(span("waiting for the load", "request,step", asked, answered))
    if record["lease"]:
        ended = releases.get(record["lease"])
        held = {"lease": record["lease"], "model": record["ref"], "held": "still" if ended is None else "to the end"}
        found.append(span(f"lease of {record['ref']}", "lease", answered, now if ended is None else ended, **held))
    return found


def _evict(record: Record) -> Instant:
    why = {name: record[name] for name in ("what", "why", "by", "policy", "rank", "of") if record[name]}
    about = {"model": record["ref"], "bytes": record["nbytes"], **why}
    return Instant(f"evict {record['ref']}", "evict", record["at"], MANAGER, f"{record['place']}: evictions", about)
