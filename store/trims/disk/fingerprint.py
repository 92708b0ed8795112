"""Whether a file is still what it was: five numbers of `stat`, and BLAKE3 where they do not tell.

Device, inode, size, mtime and ctime. All five: a rewrite in place of the same length whose mtime is put back changes
nothing but the ctime, which nobody can set. The kernel stamps files with a clock that ticks every few milliseconds, so
a key tells of every later write only once that clock has gone past its ctime; until then it is not settled, and what
was read meanwhile is not remembered. Not seen: writes through a mapping whose pages were already written to before
the key was taken, and a file system of another machine whose clock runs behind ours.

Images (squashfs, ISO 9660) have all times from when they were made, which reproducible ones set to the same for ever:
another version of one, mounted where the first was, has the same five numbers. Such keys are not remembered, either.
"""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

_CLOCK_REALTIME_COARSE = 5  # <time.h>: the clock of file times; the time module has no name for it
_COARSE_NS = 2_000_000_000  # of file systems that count whole seconds, or two
_CHUNK = 1 << 20
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class FileKey(NamedTuple):
    """Which file, and which state of it. Times in nanoseconds since the epoch."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, st: os.stat_result) -> FileKey:
        return cls(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


def is_lasting(key: FileKey) -> bool:
    """Whether no user can bring about a key that was another file's: on file systems of block devices.

    The other ones have numbers of devices that are given out anew, and users can mount some of them, such as FUSE,
    where they choose all other numbers. What one user says or gives is not to be remembered for others there.
    """
    return os.major(key.dev) != 0


def settled(key: FileKey) -> bool:
    """Whether every write from now on changes the key."""
    whole_seconds = key.ctime_ns % 1_000_000_000 == 0
    return time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) > key.ctime_ns + (_COARSE_NS if whole_seconds else 0)


def let_settle() -> None:
    """Wait until the clock of file times, which is behind the true time, has gone past now: two ticks at the most."""
    now = time.time_ns()
    for _ in range(100):
        if time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) > now:
            return
        time.sleep(0.0005)


def open_for_reading(path: str) -> int:
    """A descriptor of the regular file at `path`, never blocking. Raises OSError, also when it is something else."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: that alone can act on a device
        raise OSError(f"{path} is no regular file")
    fd = os.open(path, _FLAGS)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(f"{path} is no regular file")
    return fd


def hashed(fd: int, key: FileKey) -> tuple[str, bool]:
    """(BLAKE3 of an open file, whether `key`, taken before, tells of every later write). Raises OSError."""
    final = settled(key) and not _is_of_image(fd, key)
    digest = digest_of(fd)
    if FileKey.of(os.fstat(fd)) != key:
        raise OSError("the file is being written")
    return digest, final


def _is_of_image(fd: int, key: FileKey) -> bool:
    """Whether a file may lie in an image: the times of those have whole seconds, and nothing can be written there."""
    return key.ctime_ns % 1_000_000_000 == 0 and bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def digest_of(fd: int) -> str:
    """The BLAKE3 of an open file, hexadecimal. Raises OSError."""
    from blake3 import blake3  # here, since most files are told by their size alone

    hasher, buffer, at = blake3(), bytearray(_CHUNK), 0
    with memoryview(buffer) as view:
        while n := os.preadv(fd, [buffer], at):
            hasher.update(view[:n])
            at += n
    return str(hasher.hexdigest())
