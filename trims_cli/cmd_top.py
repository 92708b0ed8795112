"""top: the live screen of the manager; one plain frame, or JSON lines, where nobody watches."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from trims import units
from trims.errors import ManagerNotRunning, TrimsError, UsageError
from trims_cli import glance, output
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims_cli.top_sample import Sample, Sampler
    from trims_cli.top_state import Action, State


def top_(
    settings: Settings,
    once: Annotated[bool, typer.Option("--once", "-1", help="One plain frame; so it is where no terminal is.")] = False,
    count: Annotated[int | None, typer.Option("--count", metavar="N", help="End after so many frames.")] = None,
    interval: Annotated[str, typer.Option("--interval", metavar="TIME", help="Between frames.")] = "2s",
    sort: Annotated[str | None, typer.Option("--sort", metavar="COLUMN[:desc]", help="Order of the rows.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a manager where none is running.")] = False,
    readonly: Annotated[bool, typer.Option("--readonly", help="Change nothing, whatever key is pressed.")] = False,
    ascii: Annotated[bool, typer.Option("--ascii", help="Draw with plain characters.")] = False,
) -> int:
    """Watch what is resident, who uses it, and what room is left."""
    from trims_cli.top_sample import Sampler
    from trims_cli.top_state import COLUMNS, State

    seconds = units.parse_duration(interval)
    if not 0.05 <= seconds <= 3600:
        raise UsageError(f"bad interval {interval!r}", "", "from 50ms to 1h")
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    colour = settings.config["ui.color"]
    coloured = colour == "always" or (colour == "auto" and not os.environ.get("NO_COLOR"))
    state = State(interval=seconds, readonly=readonly, ascii=ascii or encoding != "utf8", colour=coloured)
    state = _sorted_by(state, settings.sort(sort, COLUMNS))
    sampler = Sampler(settings)
    try:
        if not wait and glance.look(settings) is None:
            looked = ", ".join(settings.config.sockets)
            raise ManagerNotRunning("no manager is running", f"looked at {looked}", "--wait waits for one")
        if settings.machine or settings.form in ("json", "jsonl"):
            return _lines(sampler, state, 1 if once else count)
        if once or not (sys.stdout.isatty() and sys.stdin.isatty()):
            return _plain(settings, sampler, state, count or 1)
        return _live(settings, sampler, state, count)
    finally:
        sampler.close()


def _sorted_by(state: State, sort: str | None) -> State:
    from trims_cli.top_state import COLUMNS

    if sort is None:
        return state
    name, _, direction = sort.partition(":")
    for at, column in enumerate(COLUMNS):
        if column.name.lower() == name.lower() and direction in ("", "asc", "desc"):
            return replace(state, sort=at, reverse=direction == "desc")
    raise UsageError(f"cannot sort by {sort!r}", "", "columns are " + ", ".join(c.name for c in COLUMNS))


def _lines(sampler: Sampler, state: State, count: int | None) -> int:
    """One JSON object a tick."""
    while True:
        output.write(output.to_json(sampler.take().to_item()) + "\n")
        sys.stdout.flush()
        count = None if count is None else count - 1
        if count is not None and count <= 0:
            return 0
        time.sleep(state.interval)


def _plain(settings: Settings, sampler: Sampler, state: State, count: int) -> int:
    """Frames as plain text; the first has no rates yet, so a single one waits for none."""
    from trims_cli import status, top_view
    from trims_cli.top_state import COLUMNS, visible

    for left in range(count, 0, -1):
        sample = sampler.take()
        if sample.pid is None:
            output.write("no manager is running\n")
        else:
            output.write(f"manager {sample.version}, process {sample.pid}\n")
            output.write(status.place_table(settings, sample.places))
            gone = [top_view.last_eviction(sample.last_eviction)] if sample.last_eviction else []
            output.write("\n".join([top_view.rates(sample), *gone]) + "\n\n")
            output.write(output.listing_text(settings, visible(state, sample.rows), COLUMNS))
        sys.stdout.flush()
        if left > 1:
            time.sleep(state.interval)
    return 0


def _live(settings: Settings, sampler: Sampler, state: State, count: int | None) -> int:
    from trims_cli.top_screen import Screen, until
    from trims_cli.top_state import press, visible
    from trims_cli.top_view import frame

    with Screen(settings.config["ui.color"]) as screen:
        sample = sampler.take()
        due = time.monotonic() + state.interval
        while True:
            shown = _guarded(state, sample)
            screen.draw(lambda width, height: frame(shown, sample, width, height))  # noqa: B023 - drawn at once
            for key in screen.wait(until(due)):
                state, action = press(_guarded(state, sample), key, visible(state, sample.rows))
                if action is not None and action.verb == "quit":
                    return 0
                if action is not None and action.verb == "details":
                    state = replace(state, details=tuple(_details(settings, action, sample)))
                elif action is not None:
                    state = replace(state, message=_do(settings, action))
                    due = 0.0
            if time.monotonic() >= due:
                sample = sample if state.paused else sampler.take()
                due = time.monotonic() + state.interval
                count = None if count is None else count - 1
                if count is not None and count <= 0:
                    return 0


def _guarded(state: State, sample: Sample) -> State:
    """Somebody else's manager is only looked at."""
    foreign = sample.uid is not None and sample.uid != os.getuid()
    return replace(state, readonly=state.readonly or foreign)


def _details(settings: Settings, action: Action, sample: Sample) -> list[str]:
    """What it is, who uses it, and what happened to it; the last lines are the newest."""
    from trims.client.control import Control
    from trims_cli import history

    rows = [row for row in sample.rows if row["id"] == action.digest and row["place"] == action.place]
    try:
        with Control([sample.socket], greeting=1.0) as control:
            past = history.text(settings, history.ask(control, action.digest)).splitlines()
    except TrimsError as error:
        past = [str(error)]
    return [*top_details(settings, action, rows), "", "what happened, newest last", *past]


def top_details(settings: Settings, action: Action, rows: list[output.Item]) -> list[str]:
    """The lines of what is resident of a model in a place, and of its users."""
    lines = [f"{action.model}  id:{action.digest[:12]}  {action.place}"]
    for variant in sorted({row["variant"] for row in rows}):
        row = next(row for row in rows if row["variant"] == variant)
        size, load = output.cell("size", row["nbytes"]), output.cell("took", row["load_seconds"])
        facts = f"{row['state']}, {row['hits']} hits, {row['pins']} pins, loaded in {load}"
        lines.append(f"{variant}  {size}, {facts}, last used {output.cell('time', row['used'])} ago")
    users = [row for row in rows if row["pid"] is not None]
    return lines + [
        f"used by {row['command'] or '-'} (process {row['pid']}, {row['user']}"
        + (f", job {row['job']}" if row["job"] else "")
        + f") for {output.cell('span', row['age'])}"
        for row in users
    ]


def _do(settings: Settings, action: Action) -> str:
    """Ask the manager; gives the line to show."""
    from trims.client.control import Control
    from trims_cli.resident import user

    fields: output.Item = {"ref": action.model}
    if action.verb != "unpin":
        fields |= {"place": action.place, "timeout": 5.0}
    if action.verb == "pin":
        fields |= {"owner": user(), "reason": "trims top"}
    try:
        with Control(settings.config.sockets) as control:
            items = control.request(action.verb, wait=5.0, **fields)
    except TrimsError as error:
        return str(error)
    outcomes = sorted({str(item.get("outcome", "dropped")) for item in items}) or ["nothing to do"]
    return f"{action.verb} {action.model}: {', '.join(outcomes)}"
