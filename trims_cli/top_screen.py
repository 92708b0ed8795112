"""The terminal of `top`: raw keys in, frames out, and whatever happens, the terminal as it was.

Keys, resizing and job control wake one `select`; nothing polls. Ctrl-Z hands the terminal back before it stops.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from types import FrameType
from typing import Any

from rich.console import Console, Group
from rich.live import Live

_ESCAPES = {
    "[A": "up", "[B": "down", "[5~": "pageup", "[6~": "pagedown", "[H": "home", "[F": "end", "OA": "up", "OB": "down",
    "[1~": "home", "[4~": "end", "OH": "home", "OF": "end",
}  # fmt: skip
_CONTROLS = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\x08": "backspace", "\x03": "ctrl-c"}


def keys(data: str) -> list[str]:
    """The keys in what a terminal sent. An escape alone is `escape`; an unknown sequence is left out."""
    found, at = [], 0
    while at < len(data):
        if data[at] != "\x1b":
            found.append(_CONTROLS.get(data[at], data[at]))
            at += 1
            continue
        for sequence, name in _ESCAPES.items():
            if data.startswith(sequence, at + 1):
                found.append(name)
                at += 1 + len(sequence)
                break
        else:
            if at + 1 < len(data) and data[at + 1] in "[O":
                at += 2
                while at < len(data) and not (data[at].isalpha() or data[at] == "~"):
                    at += 1
            else:
                found.append("escape")
            at += 1
    return found


class Screen:
    """The alternate screen in raw mode, as a context manager."""

    def __init__(self, colour: str) -> None:
        forced, refused = (True if colour == "always" else None), (True if colour == "never" else None)
        self.console = Console(file=sys.stdout, force_terminal=forced, no_color=refused)
        self._live: Live | None = None
        self._shown: object = None
        self._saved: list[int | list[bytes | int]] = []
        self._wake = (-1, -1)
        self._stop_asked = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Screen:
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number, handler in ((signal.SIGWINCH, self._ignore), (signal.SIGTSTP, self._ask_stop)):
            self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        for fd in self._wake:
            os.close(fd)

    def draw(self, frame: Callable[[int, int], Group]) -> None:
        """Show a frame of the terminal's present size, unless it is shown already: most frames differ in nothing."""
        assert self._live is not None
        size = self.console.size
        lines = frame(size.width, size.height)
        shown = (size, lines.renderables)
        if shown != self._shown:
            self._shown = shown
            self._live.update(lines, refresh=True)

    def wait(self, seconds: float) -> list[str]:
        """The keys pressed within `seconds`; [] when the time is over or the size has changed."""
        ready, _, _ = select.select([0, self._wake[0]], [], [], max(0.0, seconds))
        if self._wake[0] in ready:
            os.read(self._wake[0], 512)
        if self._stop_asked:
            self._stop()
        if 0 not in ready:
            return []
        data = os.read(0, 512)
        return keys(data.decode("utf-8", "replace")) if data else ["q"]

    def _take(self) -> None:
        self._saved = termios.tcgetattr(0)
        tty.setcbreak(0)
        self._shown = None
        self._live = Live(console=self.console, screen=True, auto_refresh=False)
        self._live.start()

    def _give_back(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        termios.tcsetattr(0, termios.TCSAFLUSH, self._saved)

    def _stop(self) -> None:
        self._stop_asked = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def _ask_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_asked = True

    def _ignore(self, _number: int, _frame: FrameType | None) -> None:
        pass


def until(deadline: float) -> float:
    """Seconds left."""
    return max(0.0, deadline - time.monotonic())
