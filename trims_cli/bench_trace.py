"""A workload's run as a Chrome trace: every phase of every request, and what the manager did, on one clock."""

from __future__ import annotations

from typing import Any

from trims.client.records import Cursor
from trims.workload import chrome, outcomes, timeline
from trims.workload.setting import Run
from trims.workload.world import World
from trims_cli import tracing

_PHASES = (("wait", "asked", "began"), ("get the model", "began", "ready"), ("first result", "ready", "done"))


def events(world: World, side: str, run: Run, label: str) -> list[chrome.Event]:
    """The spans of a run's requests, and the manager's records while it still lives."""
    found: list[chrome.Event] = requests(run, f"{label}, {side}: clients")
    if world.running:
        with world.control() as control:
            cursor = Cursor(control)
            found += timeline.events(cursor.take(), cursor.now)
    return found


def requests(run: Run, process: str) -> list[Any]:
    """Spans of a run's requests, a row a client: the request, and its phases within."""
    spans = []
    for row in run.outcomes:
        times = {name: float(row[name]) + run.began for name in outcomes.TIMES}
        lane = f"client {int(row['client'])}"
        how = outcomes.HOW[int(row["how"])]
        args = {"request": int(row["request"]), "how": how}
        if how == "failed":
            args["why"] = run.reasons.get(int(row["request"]), "")
        name = f"model {int(row['model'])}"
        spans.append(chrome.Span(name, "request", times["asked"], times["done"], process, lane, args))
        if how != "failed":
            spans += [chrome.Span(n, "phase", times[a], times[b], process, lane) for n, a, b in _PHASES]
    return chrome.untangle(spans)


def write(found: list[chrome.Event], path: str) -> None:
    """Write the trace; times begin with the first event."""
    origin = min((e.begin if isinstance(e, chrome.Span) else e.at for e in found), default=0.0)
    tracing.write_document(list(chrome.write(found, origin)), path, force=True)
