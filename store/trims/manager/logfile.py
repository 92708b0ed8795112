"""The manager's log: one line an event, with its time, in a file that is replaced before it grows too long.

    2026-01-31T12:00:00Z info warming resnet50:latest

What would break out of its line is escaped. The process's own stderr goes to the same file when it is detached, so
that a traceback of the interpreter itself is found there too.
"""

from __future__ import annotations

import os
import time

from trims.errors import one_line

LEVELS = ("debug", "info", "warning")
LIMIT = 4 << 20
"""Bytes after which the file is renamed to NAME.1, replacing the one before."""


class Log:
    """A log to `path`, or to standard error when that is None."""

    def __init__(self, path: str | None, level: str = "info", limit: int = LIMIT) -> None:
        self._path, self._limit = path, limit
        self._least = LEVELS.index(level)
        self._fd = 2 if path is None else _open(path)
        self._size = 0 if path is None else os.fstat(self._fd).st_size

    def write(self, text: str, level: str = "info") -> None:
        """One line. Never fails: a full disk must not end the manager."""
        if LEVELS.index(level) < self._least:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        line = f"{stamp} {level} {one_line(text)}\n".encode("utf-8", "replace")
        try:
            if self._path is not None and self._size + len(line) > self._limit:
                self._rotate(self._path)
            self._size += os.write(self._fd, line)
        except OSError:
            pass

    def adopt(self) -> None:
        """Make standard output and error go to the file as well."""
        if self._path is not None:
            os.dup2(self._fd, 1)
            os.dup2(self._fd, 2)

    def close(self) -> None:
        if self._path is not None:
            os.close(self._fd)

    def _rotate(self, path: str) -> None:
        shared = os.fstat(2).st_ino == os.fstat(self._fd).st_ino
        os.rename(path, f"{path}.1")
        os.close(self._fd)
        self._fd, self._size = _open(path), 0
        if shared:
            self.adopt()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def last_lines(path: str, count: int = 5) -> list[str]:
    """The last lines of a log, for the message of a start that failed."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 8192))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except OSError:
        return []
