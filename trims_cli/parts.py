"""Progress of a long run of many parts: a bar with the time left where a person watches, a line now and then elsewhere,
events where a program reads.

What is counted is (about) seconds of work of the whole run, so the bar moves evenly and the time left is of all of it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from trims import units
from trims_cli import output
from trims_cli.settings import Settings

_LINE_EVERY = 30.0
_EVENT_EVERY = 0.5


class Parts:
    """A context manager. Call it with (what is under way, work done, work in all)."""

    def __init__(self, settings: Settings, command: str) -> None:
        self._command = command
        choice = settings.config["ui.progress"]
        quiet = settings.quiet or choice == "off"
        self._draw = not quiet and choice == "auto" and settings.form == "table" and sys.stderr.isatty()
        self._events = settings.form == "jsonl" and not settings.quiet
        self._lines = not quiet and not self._draw and not self._events
        self._every = _LINE_EVERY if choice in ("auto", "off") else units.parse_duration(choice)
        self._colour = settings.config["ui.color"]
        self._started = self._last = time.monotonic()
        self._told = ""
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Parts:
        if self._draw:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

            console = Console(stderr=True, no_color=True if self._colour == "never" else None)
            left = TimeRemainingColumn(elapsed_when_finished=True)
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), left,
                console=console, transient=True, speed_estimate_period=120,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, what: str, done: float, total: float) -> None:
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, description=what)
        elif self._events and (what != self._told or now - self._last >= _EVENT_EVERY):
            self._last, self._told = now, what  # no part begins unheard, however short it is
            event = {"event": "progress", "name": what, "done": done, "total": total}
            output.write(output.to_json({"schema": f"trims.{self._command}/1", **event}) + "\n")
            sys.stdout.flush()
        elif self._lines and now - self._last >= self._every:
            self._last = now
            output.note(self.line(what, done, total, now - self._started))

    @staticmethod
    def line(what: str, done: float, total: float, elapsed: float) -> str:
        """`WHAT: 40% done, about 3m left`."""
        share = done / total if total else 0.0
        left = f", about {units.format_age(elapsed / share * (1 - share))} left" if share > 0.01 else ""
        return f"{what}: {share:.0%} done{left}"
