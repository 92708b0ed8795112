"""Kernel locks on open descriptors. They end with the holder, however it ends, and are never judged by age.

Two kinds: `flock` (shared and exclusive; containers, temporary files, the store lock) and open-file-description locks,
which alone can be *asked about* without being taken: a probing reader must never be in the way of a new manager.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time

from trims.errors import LockTimeout, NotPermitted

F_OFD_GETLK, F_OFD_SETLK, F_OFD_SETLKW = 36, 37, 38  # <fcntl.h>, Linux 3.15; not in the module before 3.13
_FLOCK = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, len, pid
_POLL = 0.002  # seconds between tries while waiting: 5 ms and more starve under contention (measured)


def try_lock(fd: int, exclusive: bool) -> bool:
    """Take the flock without waiting; False when somebody else's is in the way."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


class held:  # noqa: N801 - used as a function: `with held(...) as fd`; contextlib would cost the fast commands 4 ms
    """Hold the flock of the file `path`, made if missing and never removed; `as` gives the descriptor.

    Raises LockTimeout after `timeout` seconds, NotPermitted when the file cannot be opened.
    """

    __slots__ = ("exclusive", "fd", "path", "timeout")

    def __init__(self, path: str, exclusive: bool, timeout: float) -> None:
        self.path, self.exclusive, self.timeout, self.fd = path, exclusive, timeout, -1

    def __enter__(self) -> int:
        self.fd = _open_lock(self.path)
        try:
            deadline = time.monotonic() + self.timeout
            while not try_lock(self.fd, self.exclusive):
                if time.monotonic() >= deadline:
                    raise LockTimeout(
                        "the store is locked",
                        f"another trims held {self.path} for {self.timeout:g} s",
                        "wait, or raise --lock-timeout",
                    )
                time.sleep(_POLL)
        except BaseException:
            os.close(self.fd)
            raise
        return self.fd

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _open_lock(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno == errno.EROFS:
            hint = "remount it, or choose another store with --store"
            raise NotPermitted("the store cannot be changed", f"{path} is on a read-only file system", hint) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise NotPermitted(
                "the store cannot be changed", f"{path} cannot be written", "check its owner and mode"
            ) from None
        raise


def own(fd: int) -> bool:
    """Take the whole-file open-file-description write lock without waiting; False when another holder lives."""
    try:
        fcntl.fcntl(fd, F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def wait_own(fd: int) -> None:
    """Take the lock of `own`, waiting for its holder to end. Other threads run meanwhile."""
    fcntl.fcntl(fd, F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def is_owned(path: str) -> bool:
    """Whether a living process holds the lock that `own` takes. Takes nothing, so it disturbs nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)
