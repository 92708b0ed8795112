"""Which required models were redirected, by any process of a program: one byte each, in memory of the program itself.

The program's own process inherits the memory from `trims exec` as a descriptor; its children, who do not, find it
under /proc. Nothing is left when the program has ended, however it did.
"""

from __future__ import annotations

import os

from trims.redirect.environment import TICKS, wishes

_ticked: set[str] = set()


def tick(digest: str) -> None:
    """A model was redirected."""
    asked = wishes()
    if digest not in asked.require or digest in _ticked:
        return
    _ticked.add(digest)
    fd = _opened(os.O_WRONLY)
    if fd >= 0:
        try:
            os.pwrite(fd, b"\1", list(asked.require).index(digest))
        finally:
            os.close(fd)


def missing() -> list[str]:
    """The refs of required models that no process redirected; [] where that cannot be told."""
    asked = wishes()
    fd = _opened(os.O_RDONLY)
    if fd < 0:
        return []
    try:
        data = os.pread(fd, len(asked.require), 0)
    finally:
        os.close(fd)
    return [
        ref
        for n, (digest, ref) in enumerate(asked.require.items())
        if data[n : n + 1] != b"\1" and digest not in _ticked
    ]


def _opened(flags: int) -> int:
    """The memory, or -1 when the program's process has closed it, or is nowhere to be seen."""
    asked = wishes()
    path = f"/proc/{asked.main}/fd/{asked.ticks}"
    try:
        if asked.ticks < 0 or not os.readlink(path).startswith(f"/memfd:{TICKS}"):
            return -1
        return os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return -1
