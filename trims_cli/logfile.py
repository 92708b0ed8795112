"""Reading the manager's log: its last lines, those since a time, and new ones as the kernel reports them."""

from __future__ import annotations

import os
import sys
import time

from trims import units
from trims.errors import TrimsError
from trims_cli import times

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims_cli.settings import Settings

_BLOCK = 1 << 16


def trace(settings: Settings, path: str, since: str | None, force: bool) -> int:
    """Write what the manager did lately to `path`, as a Chrome trace."""
    from trims.client.control import Control
    from trims_cli import output, tracing

    seconds = units.parse_duration(since) if since is not None else None
    with Control(settings.config.sockets) as control:
        pieces, lost = tracing.spans_document(control, seconds)
    tracing.write_document(pieces, path, force)
    early = f"; {lost} earlier records are gone" if lost else ""
    if path != "-" and settings.form == "table":
        output.tell(settings, lambda: f"wrote {path}, for ui.perfetto.dev or chrome://tracing{early}")
    elif path != "-":
        columns = (output.Column("FILE", "file"), output.Column("LOST", "lost", "int"))
        output.emit(settings, "logs", [{"file": path, "lost": lost}], columns, "file")
    return 0


def show(path: str, follow: bool, lines: int, since: str | None) -> int:
    """Print the log at `path`."""
    oldest = time.time() - units.parse_duration(since) if since is not None else None
    try:
        with open(path, "rb") as file:
            text = file.read() if since is not None or not lines else tail(file.fileno(), lines)
            file.seek(0, os.SEEK_END)
            _print(text if oldest is None else newer(text, oldest))
            if follow:
                _follow(path, file.tell())
    except OSError as error:
        raise TrimsError(f"cannot read {path}", os.strerror(error.errno or 0)) from None
    return 0


def tail(fd: int, lines: int) -> bytes:
    """The last `lines` lines of a file, read from its end."""
    at, text = os.fstat(fd).st_size, b""
    while at and text.count(b"\n") <= lines:
        start = max(0, at - _BLOCK)
        text = os.pread(fd, at - start, start) + text
        at = start
    return b"".join(text.splitlines(keepends=True)[-lines:])


def newer(text: bytes, oldest: float) -> bytes:
    """The lines from the first that is as new as `oldest` on; lines without a time go with their elders."""
    kept = text.splitlines(keepends=True)
    for at, line in enumerate(kept):
        try:
            if times.epoch(line[:20].decode("ascii")) >= oldest:
                return b"".join(kept[at:])
        except ValueError:
            continue
    return b""


def _follow(path: str, at: int) -> None:
    """Print what is appended, also to the file that a new manager puts in its place, until interrupted."""
    from trims_cli.inotify import CREATED, MODIFIED, MOVED_AWAY, Watch

    with Watch() as watch:
        watch.add(os.path.dirname(path) or ".", CREATED)
        watch.add(path, MODIFIED | MOVED_AWAY)
        file = open(path, "rb")  # noqa: SIM115 - it is replaced when the path names another file
        try:
            while True:
                found = os.stat(path) if os.path.exists(path) else os.fstat(file.fileno())
                file.seek(at)
                _print(file.read())
                at = file.tell()
                if (found.st_dev, found.st_ino) != _identity(file.fileno()) or found.st_size < at:
                    file.close()
                    file, at = open(path, "rb"), 0  # noqa: SIM115
                    watch.add(path, MODIFIED | MOVED_AWAY)
                    continue
                watch.wait(float("inf"))
        finally:
            file.close()


def _identity(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _print(text: bytes) -> None:
    if text:
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
