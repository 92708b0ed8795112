"""Durable publication: write, fsync, rename, fsync the directory. All is visible after the rename, nothing before.

What is not promised: a disk that lies about fsync. A crash leaves only files under temporary names; each is locked
by its writer, so that whoever cleans up can tell an abandoned one from one in use.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from trims.errors import NoSpace, NotPermitted, TrimsError, UsageError
from trims.linux import step

SHARED = 0o2775
"""Mode of the directories that a group shares."""


def translate(error: OSError, doing: str) -> TrimsError:
    """The error a user sees for `error`, which happened while `doing` (a gerund: "writing the container")."""
    what = f"{doing} failed"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpace(what, "the disk is full", "free some space, or choose another store with --store")
    if error.errno == errno.EROFS:
        return NotPermitted(what, "its file system is read-only", "remount it, or choose another store with --store")
    if error.errno in (errno.EACCES, errno.EPERM):
        return NotPermitted(what, f"{error.filename or 'the directory'} cannot be written", "check its owner and mode")
    return TrimsError(what, os.strerror(error.errno or 0) + (f": {error.filename}" if error.filename else ""))


@contextmanager
def staged(directory: str, suffix: str = "") -> Iterator[str]:
    """A fresh, locked temporary file in `directory`; yields its path and removes what is left of it at the end.

    The lock is a shared `flock` on a descriptor of its own that lives as long as the block: a collector that can lock
    the file exclusively knows that its writer is gone.
    """
    path = os.path.join(directory, f"t-{os.urandom(8).hex()}{suffix}")  # tempfile would cost clients 5 ms to import
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        if is_shared(directory):
            os.fchmod(fd, 0o640)  # so that others' collectors can ask for its lock
        step("staged")
        yield path
    finally:
        os.close(fd)
        with_suppressed_missing(path)


def with_suppressed_missing(path: str) -> None:
    """Remove `path` if it is there: after a rename it is not."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def fsync_path(path: str) -> None:
    """Flush one file or directory to the device."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def publish(path: str, target: str) -> None:
    """Give the finished temporary file `path` its name `target`, durably, replacing the file that was there.

    Raises UsageError when what is there is no file: a rename would take a device away from the whole machine.
    """
    step("before fsync")
    fsync_path(path)
    step("before rename")
    _rename(path, target)
    step("before directory fsync")
    fsync_path(os.path.dirname(target))
    step("published")


def is_odd(path: str) -> bool:
    """Whether something is there, behind a link or not, that is no file: a device, a pipe, a directory."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _rename(path: str, target: str) -> None:
    if is_odd(target):
        raise UsageError(f"cannot write {target}", "it is there, and no file", "choose another name")
    os.rename(path, target)


def make_directory(path: str, mode: int = 0o777, inherit: bool = True) -> None:
    """Create `path` and its missing parents, durably. inherit: what is open to all is a shared parent's group's too."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    make_directory(parent, mode, inherit)
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    if inherit and mode == 0o777 and is_shared(parent):  # whatever the umask says
        os.chmod(path, SHARED)
    fsync_path(parent)


def is_shared(directory: str) -> bool:
    """Whether a group shares this directory: it may write there, and what is made there is the group's."""
    mode = os.stat(directory).st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def write_all(fd: int, data: bytes | memoryview, offset: int | None = None) -> None:
    """Write every byte of `data`, at `offset` or at the descriptor's position; a short write goes on."""
    view = memoryview(data).cast("B")
    while view:
        step("write")
        n = os.write(fd, view) if offset is None else os.pwrite(fd, view, offset)
        view = view[n:]
        if offset is not None:
            offset += n


def replace(target: str, data: bytes, tmp: str, mode: int = 0o644, durable: bool = True) -> None:
    """Make `target` hold exactly `data`. `tmp` is a directory on the same file system.

    durable=False skips both fsyncs: for files that are disposable and only must never be seen half-written. Raises
    UsageError as `publish` does.
    """
    with staged(tmp) as path:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            write_all(fd, data)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        if durable:
            publish(path, target)
        else:
            _rename(path, target)
