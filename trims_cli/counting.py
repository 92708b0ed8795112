"""Progress of work that is counted in requests: a bar with the time left on a terminal, a line now and then elsewhere.

The whole is known from the start, so the time left is of all that is still to be done, not of the part at hand.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from trims import units
from trims.errors import one_line
from trims_cli import output
from trims_cli.settings import Settings

_LINE_EVERY = 30.0


class Count:
    """A context manager. `part` names what is under way; call it with how much of that part is done."""

    def __init__(self, settings: Settings, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._before = self._part = 0
        self._name = ""
        self._started = self._last = time.monotonic()
        choice = settings.config["ui.progress"]
        quiet = settings.quiet or choice == "off"
        self._draw = not quiet and choice == "auto" and settings.form == "table" and sys.stderr.isatty()
        self._lines = not quiet and not self._draw and settings.form != "jsonl"
        self._every = _LINE_EVERY if choice in ("auto", "off") else units.parse_duration(choice)
        self._colour = settings.config["ui.color"]
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Count:
        if self._draw:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            console = Console(stderr=True, no_color=True if self._colour == "never" else None)
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TimeRemainingColumn(), console=console, transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def part(self, name: str) -> None:
        """What comes next; what was under way is done."""
        self._before += self._part
        self._part, self._name = 0, name
        self(0)

    def say(self, what: str) -> None:
        """What is being made ready, before anything counts."""
        self._name = what
        self(self._part)

    def __call__(self, done: int, total: int = 0) -> None:
        self._part = done
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._before + done, description=one_line(self._name))
        elif self._lines and now - self._last >= self._every:
            self._last = now
            output.note(self.line(now))

    def line(self, now: float) -> str:
        """`cell 3 of 9: 120 of 900 requests, about 40s left`."""
        done = self._before + self._part
        left = (now - self._started) / done * (self._total - done) if done else 0.0
        about = f", about {units.format_age(left)} left" if done else ""
        return f"{self._name}: {done} of {self._total} requests{about}"
