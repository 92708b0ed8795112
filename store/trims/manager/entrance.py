"""The listening socket: connections are taken as they come, some at a time, and later when there is no room for one."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import Protocol

from trims.linux import fdpass

_ACCEPTS = 64  # connections taken in one turn: those who are there already are served between
_PAUSE = 1.0  # seconds until it is tried again, when no descriptor was free
_FULL = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Loop(Protocol):
    """What this needs of the loop."""

    def watch(self, fd: int, call: Callable[[int], None]) -> None: ...

    def unwatch(self, fd: int) -> None: ...

    def at(self, when: float, call: Callable[[], None]) -> None: ...


class Entrance:
    """take: called with each connection."""

    def __init__(
        self,
        listener: socket.socket,
        loop: Loop,
        log: Callable[[str, str], None],
        take: Callable[[socket.socket], None],
    ) -> None:
        listener.setblocking(False)
        fdpass.refuse(listener)
        self._listener: socket.socket | None = listener
        self._loop, self._log, self._take = loop, log, take
        self._open = False
        self.reopen()

    def reopen(self) -> None:
        """Take connections again, after one has ended."""
        if self._listener is not None and not self._open:
            self._open = True
            self._loop.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Take no more, for good."""
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def _accept(self, _events: int) -> None:
        for _ in range(_ACCEPTS):
            if self._listener is None:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._log(f"no connection can be taken: {error.strerror}", "warning")
                    self._open = False
                    self._loop.unwatch(self._listener.fileno())  # until one closes, or a while has passed
                    self._loop.at(time.monotonic() + _PAUSE, self.reopen)
                    return
                continue
            self._take(sock)
