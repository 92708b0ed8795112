"""Progress by bytes: a bar where a person watches, a line now and then where a log is written, events where a program
reads, and one line at once for whoever sends SIGUSR1.

`ui.progress` chooses: auto (a bar on a terminal, a line every 30 s elsewhere), off, or seconds between lines.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the signal module proper wraps every number in an enum: 4 ms
import sys
import time
from collections.abc import Callable
from typing import Any

from trims import units
from trims_cli import output
from trims_cli.settings import Settings

_LINE_EVERY = 30.0
_EVENT_EVERY = 0.5


class Meter:
    """One piece of work. Call it with (bytes done, bytes in all); use it as a context manager."""

    def __init__(self, settings: Settings, what: str, command: str) -> None:
        self._what, self._command, self._started = what, command, time.monotonic()
        self._done, self._total, self._handler = 0, 0, None
        self._bar: _Bar | None = None
        choice = settings.config["ui.progress"]
        self._colour = settings.config["ui.color"]
        self._events = settings.form == "jsonl" and not settings.quiet
        quiet = settings.quiet or choice == "off"
        self._draw = not quiet and choice == "auto" and settings.form == "table" and sys.stderr.isatty()
        self._every = _LINE_EVERY if choice in ("auto", "off") else units.parse_duration(choice)
        self._lines = not quiet and not self._draw and not self._events
        self._last = self._started

    def __enter__(self) -> Meter:
        self._handler = _signal.signal(_signal.SIGUSR1, lambda *_: self._say())
        if self._draw:
            self._bar = _Bar(self._what, self._colour)
        return self

    def __exit__(self, *_: object) -> None:
        _signal.signal(_signal.SIGUSR1, self._handler or _signal.SIG_DFL)
        if self._bar is not None:
            self._bar.close()

    def __call__(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        if self._bar is not None:
            self._bar.update(done, total)
            return
        now = time.monotonic()
        if self._events and (now - self._last >= _EVENT_EVERY or done == total):
            self._last = now
            event = {"event": "progress", "name": self._what, "done": done, "total": total}
            output.write(output.to_json({"schema": f"trims.{self._command}/1", **event}) + "\n")
            sys.stdout.flush()
        elif self._lines and now - self._last >= self._every:
            self._last = now
            self._say()

    def add(self, nbytes: int) -> None:
        """For work that says how much more is done: the total is not known."""
        self(self._done + nbytes, self._total)

    def _say(self) -> None:
        of = f" of {units.format_size(self._total)}" if self._total else ""
        rate = self._done / max(1e-6, time.monotonic() - self._started)
        output.note(f"{self._what}: {units.format_size(self._done)}{of}, {units.format_size(int(rate))}/s")


class _Bar:
    """A bar on the terminal behind standard error, gone when the work is done."""

    def __init__(self, what: str, colour: str) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        console = Console(stderr=True, no_color=True if colour == "never" else None)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True),
            TransferSpeedColumn(), TimeRemainingColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task(output.clean(what), total=None)
        self._progress.start()

    def update(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total or None)

    def close(self) -> None:
        self._progress.stop()


class Loads:
    """Several loads at once, each with its share of one bar."""

    def __init__(self, colour: str) -> None:
        self._bar, self._parts = _Bar("warming", colour), dict[str, tuple[int, int]]()

    def of(self, name: str) -> Callable[[int, int], None]:
        """What to call with the progress of one of them."""

        def update(done: int, total: int) -> None:
            self._parts[name] = (done, total)
            self._bar.update(sum(d for d, _ in self._parts.values()), sum(t for _, t in self._parts.values()))

        return update

    def close(self) -> None:
        self._bar.close()


def wanted(settings: Settings) -> Any:
    """A bar for loads where a person watches, or None."""
    watched = settings.form == "table" and not settings.quiet and sys.stderr.isatty()
    return Loads(settings.config["ui.color"]) if watched and settings.config["ui.progress"] == "auto" else None
