"""Recording the manager's log of requests to a file, and its spans to another.

A recorder reads the manager's records by a cursor, five times a second, and writes a request when its lease has ended;
those that are held still at the end are written then. The file is written line by line and is valid after each: a
signal, its time, the manager's death, a full disk, whatever ends the recording leaves a trace of what was until then.
Signals are blocked and taken between two turns, so that none can come between a write and the memory of it.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trims.client.control import Control
from trims.client.records import Cursor
from trims.errors import ManagerUnreachable, UsageError
from trims.linux import atomic
from trims.workload import trace
from trims.workload.outcomes import FAILED, HOW
from trims.workload.traced import TracedClient, TracedModel
from trims_cli import times

Record = dict[str, Any]
Describe = Callable[[str, str, str, str, int], TracedModel]
"""(ref, digest, variant, place, bytes) -> the model's line."""
TURN = 0.2
ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


class Output:
    """The file. Whole lines only: what a full disk cut off is taken back."""

    def __init__(self, path: str, force: bool) -> None:
        self.path = path
        self._length = 0
        self._fd = 1 if path == "-" else _open(path, force)

    def write(self, lines: bytes) -> None:
        """Append lines. Raises TrimsError, BrokenPipeError."""
        try:
            atomic.write_all(self._fd, lines)
        except BrokenPipeError:
            raise
        except OSError as error:
            if self.path != "-" and stat.S_ISREG(os.fstat(self._fd).st_mode):
                os.ftruncate(self._fd, self._length)
            raise atomic.translate(error, f"writing {self.path}") from None
        self._length += len(lines)

    def close(self) -> None:
        if self.path != "-":
            os.close(self._fd)


def _open(path: str, force: bool) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if force else os.O_EXCL)
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            flags = os.O_WRONLY | os.O_CLOEXEC  # a pipe or a device: there is nothing to overwrite
        return os.open(path, flags, 0o666)
    except FileExistsError:
        raise UsageError(f"{path} exists", "", "choose another name, or overwrite it with --force") from None
    except FileNotFoundError:
        raise UsageError(f"cannot write {path}", "there is no such directory") from None
    except OSError as error:
        raise atomic.translate(error, f"writing {path}") from None


class Recorder:
    """Turns records into lines. `began` is the CLOCK_MONOTONIC that becomes second 0; `seconds` is known at the end."""

    def __init__(self, began: float, describe: Describe) -> None:
        self.began, self._describe = began, describe
        self.seconds = 0.0
        self._models: dict[tuple[str, str, str, str], int] = {}
        self._clients: dict[int, int] = {}
        self._held: dict[int, tuple[trace.Row, float]] = {}  # lease: its request, and when it was granted
        self.requests = self.lost = 0

    @property
    def models(self) -> int:
        return len(self._models)

    @property
    def clients(self) -> int:
        return len(self._clients)

    @property
    def held(self) -> int:
        return len(self._held)

    def lines(self, records: Sequence[Record], lost: int) -> bytes:
        """What is to be written now that these records are there, and `lost` are gone in all."""
        out: list[object] = []
        if lost > self.lost:
            out.append(trace.Entry(lost=lost - self.lost))
            self.lost = lost
        for record in records:
            if record["kind"] == "request" and record["verb"] == "attach" and record["arrived"] >= self.began:
                self._request(record, out)
            elif record["kind"] == "release" and (held := self._held.pop(record["lease"], None)) is not None:
                row, since = held
                out.append(trace.row(*row[:5], record["at"] - since))
        return b"".join(map(trace.line, out))

    def end(self, now: float) -> bytes:
        """The last lines: what is held still, and how long it all was."""
        self.seconds = round(now - self.began, 6)
        rest = [row for row, _ in self._held.values()]
        return b"".join(map(trace.line, [*rest, trace.Entry(ended=self.seconds)]))

    def _request(self, record: Record, out: list[object]) -> None:
        client = self._clients.get(record["conn"])
        if client is None:
            client = self._clients[record["conn"]] = len(self._clients)
            out.append(trace.Entry(client=TracedClient(record["pid"], record["job"])))
        form = (record["ref"], record["digest"], record["variant"], record["place"])
        model = self._models.get(form)
        if model is None:
            model = self._models[form] = len(self._models)
            out.append(trace.Entry(model=self._describe(*form, record["nbytes"])))
        how = HOW.index(record["how"]) if record["how"] in HOW else FAILED
        arrived, answered = record["arrived"], record["answered"]
        row = trace.row(arrived - self.began, client, model, how, answered - arrived, None)
        self.requests += 1
        if record["lease"]:
            self._held[record["lease"]] = row, answered
        else:
            out.append(row)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a recording ended: the signal (0: its time was over), or the manager's error."""

    number: int = 0
    error: ManagerUnreachable | None = None


def record(
    recorder: Recorder, cursor: Cursor, out: Output, until: float, told: Callable[[], None] = lambda: None
) -> Ended:
    """Record until then (CLOCK_MONOTONIC), or a signal, or the manager's end; then write the last lines.

    told: called after every turn, for whoever watches.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        how = _turns(recorder, cursor, out, until, told)
        out.write(recorder.end(time.monotonic()))
        return how
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _turns(recorder: Recorder, cursor: Cursor, out: Output, until: float, told: Callable[[], None]) -> Ended:
    while True:
        left = until - time.monotonic()
        came = signal.sigtimedwait(ENDING, max(0.0, min(TURN, left)))
        try:
            lines = recorder.lines(cursor.take(), cursor.lost)
        except ManagerUnreachable as error:
            return Ended(error=error)
        if lines:
            out.write(lines)
        told()
        if came is not None or left <= 0:
            return Ended(came.si_signo if came is not None else 0)


def begin(control: Control, out: Output, describe: Describe) -> tuple[Recorder, Cursor]:
    """The header is written; everything that arrives from now on will be recorded."""
    (status,) = control.request("status", wait=10.0)
    cursor = Cursor(control, -1)
    budgets = {place: use["budget"] for place, use in status["budgets"].items()}
    about = {"trims": status["version"], "policy": status["policy"], "budgets": budgets}
    out.write(trace.header(times.rfc3339(time.time()), about))
    return Recorder(cursor.now, describe), cursor


def spans_document(control: Control, since: float | None) -> tuple[list[str], int]:
    """The manager's spans as pieces of a Chrome trace, and how many of its records are gone.

    since: only what ended in the last so many seconds.
    """
    from trims.workload import chrome, timeline

    cursor = Cursor(control)
    events = timeline.events(cursor.take(), cursor.now)
    if since is not None:
        oldest = cursor.now - since
        events = [e for e in events if (e.end if isinstance(e, chrome.Span) else e.at) >= oldest]
    origin = min((e.begin if isinstance(e, chrome.Span) else e.at for e in events), default=0.0)
    welcome = control.welcome
    about = {"trims": welcome["trims"], "manager": welcome["pid"], "clock": "CLOCK_MONOTONIC", "origin": origin,
             "lost": cursor.lost}  # fmt: skip
    return list(chrome.write(events, origin, about)), cursor.lost


def write_document(pieces: Sequence[str], path: str, force: bool) -> None:
    """Write a document whole, under its name; `-` is standard output."""
    if path == "-":
        sys.stdout.writelines(pieces)
        return
    from trims.disk.exporters.target import Target

    target = Target(path, None, force)
    try:
        target.check()
        with target:
            file = target.open()
            for piece in pieces:
                file.write(piece.encode("ascii"))
            target.publish()
    except OSError as error:
        raise atomic.translate(error, f"writing {path}") from None
