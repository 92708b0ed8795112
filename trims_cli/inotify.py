"""The kernel's word that a file or directory has changed (inotify(7)), for waiting without polling."""

from __future__ import annotations

import ctypes
import os
import select

MODIFIED, MOVED_AWAY, CREATED = (
    0x002,
    0xC00,
    0x100 | 0x080,
)  # IN_MODIFY; IN_DELETE_SELF|IN_MOVE_SELF; IN_CREATE|IN_MOVED_TO
_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 1e6  # seconds, what poll can be told


class Watch:
    """A set of watched paths. `wait` comes back when anything watched has happened since it was added."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(_NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "inotify_init1")
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def add(self, path: str, events: int) -> None:
        """Watch `path`; a path that is gone by now is no error, the caller looks again."""
        self._libc.inotify_add_watch(self._fd, os.fsencode(path), ctypes.c_uint32(events))

    def wait(self, timeout: float) -> bool:
        """Whether something happened within `timeout` seconds."""
        if not self._poll.poll(min(timeout, _LONGEST) * 1000):
            return False
        os.read(self._fd, 1 << 16)
        return True
