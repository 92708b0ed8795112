"""Descriptors that may be lost: a program that closes all there are, as daemons do at their start, closes ours too.

The kernel then gives their numbers to files and connections of the program. Whoever keeps a descriptor for long in a
process that is not ours asks before each use whether it still is the same one. It costs a microsecond.
"""

from __future__ import annotations

import os
import resource

Identity = tuple[int, int]


def identity(fd: int) -> Identity:
    """What an open descriptor refers to: (device, inode). Raises OSError."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def is_still(fd: int, was: Identity) -> bool:
    """Whether `fd` refers to what it did."""
    try:
        return identity(fd) == was
    except (OSError, ValueError, TypeError):  # the last at the end of the interpreter, when names are gone
        return False


def are_scarce() -> bool:
    """Whether this process uses half of the descriptors that it may have, or more."""
    try:
        fd = os.open("/", os.O_PATH | os.O_CLOEXEC)  # it gets the lowest number that is free
    except OSError:
        return True
    os.close(fd)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 0 <= limit <= 2 * fd
