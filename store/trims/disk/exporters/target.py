"""Where an export goes: a file that appears whole under its name, or one that somebody else has open."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from typing import BinaryIO

from trims.errors import UsageError
from trims.linux import atomic, step


class Target:
    """The file to write. A context manager: what was not published at its end is gone.

    path: its name, for messages when `stream` is given. written: the paths published so far.
    """

    def __init__(self, path: str, stream: BinaryIO | None, force: bool) -> None:
        self.path, self._stream, self._force = path, stream, force
        # A link is followed: replaced is what it leads to.
        self._real = path if stream is not None else os.path.realpath(path)
        self._stack = ExitStack()
        self._files: list[BinaryIO] = []
        self._staged: list[tuple[str, str]] = []
        self.written: list[str] = []

    @property
    def is_stream(self) -> bool:
        return self._stream is not None

    @property
    def name(self) -> str:
        """The base name that the file will have."""
        return os.path.basename(self._real)

    def check(self) -> None:
        """Raise UsageError when nothing can be written there."""
        if self._stream is None:
            self._check(self._real)

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, suffix: str = "") -> BinaryIO:
        """The file to write to; with a suffix, another one beside it that is published before it."""
        if self._stream is not None:
            return self._stream
        file = self._stack.enter_context(open(self.stage(suffix), "wb"))  # noqa: SIM115
        self._files.append(file)
        return file

    def stage(self, suffix: str = "") -> str:
        """The temporary path of the file, for a library that opens it itself."""
        final = self._real + suffix
        self._check(final)
        path = self._stack.enter_context(atomic.staged(os.path.dirname(self._real)))
        os.chmod(path, 0o666 & ~_umask())
        self._staged.append((path, final))
        return path

    def publish(self) -> None:
        """Give all files their names, those beside it first."""
        for file in self._files:
            file.flush()
        for path, final in sorted(self._staged, key=lambda pair: pair[1] == self._real):
            if self._force:
                atomic.publish(path, final)
            else:
                _publish_new(path, final)
            self.written.append(final)

    def _check(self, path: str) -> None:
        try:
            mode = os.stat(path).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            raise
        if not stat.S_ISREG(mode):
            raise UsageError(f"cannot write {path}", "it is there, and no file", "choose another name")
        if not self._force:
            raise _taken(path)


def _taken(path: str) -> UsageError:
    return UsageError(f"{path} exists", "", "choose another name, or overwrite it with --force")


def _publish_new(path: str, target: str) -> None:
    """Publish without replacing what somebody may have put there meanwhile."""
    step("before fsync")
    atomic.fsync_path(path)
    try:
        os.link(path, target)
    except FileExistsError:
        raise _taken(target) from None
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        os.rename(path, target)  # a file system without hard links
    atomic.fsync_path(os.path.dirname(target))


def _umask() -> int:
    """The umask of this process, without setting it: other threads may be creating files."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next((int(line.split()[1], 8) for line in file if line.startswith("Umask:")), 0o077)
    except OSError:
        return 0o077
