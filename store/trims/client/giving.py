"""Giving files to the manager's importer: for users who may not write the store, or do not see it.

The manager names no file of ours and opens none. It sends the end of a socket; whoever is at the other end asks there
for one file after the other by number, and gets each as a descriptor that is open for reading.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any, cast

from trims.client import control
from trims.client.control import Control
from trims.errors import BadInput
from trims.linux import fdpass

Item = dict[str, Any]


class Giver(Control):
    """A connection to a manager that takes what it sends along with its messages."""

    def __init__(self, sockets: list[str]) -> None:
        self._fds: list[int] = []
        super().__init__(sockets)

    def give(self, paths: Sequence[str], progress: Callable[[int, int], None] | None = None, **fields: Any) -> Item:
        """The item of an import of these files, in the order of its field `files`. Takes as long as that takes.

        Raises the manager's refusal, BadInput when a file cannot be opened, ManagerUnreachable when it ends.
        """
        number = self.begin("import", progress, **fields)
        channel: socket.socket | None = None
        try:
            while number not in self._answers:
                if self._frames:
                    self._take(control._parse(self._frames.pop(0)))
                    continue
                ready, _, _ = select.select([self._sock, *([channel] if channel else [])], [], [])
                if channel in ready and channel is not None and not _give_one(channel, paths):
                    channel.close()
                    channel = None
                if self._sock in ready:
                    self._receive()
                    if self._fds:
                        channel = socket.socket(fileno=self._fds.pop(0))
        finally:
            if channel is not None:
                channel.close()
        return self.finish([number])[1][0]

    def close(self) -> None:
        super().close()
        fdpass.close_all(self._fds)
        self._fds.clear()

    def _recv(self) -> bytes:
        data, fds = fdpass.receive(cast(socket.socket, self._sock), 1 << 16)  # recvmsg is its base's
        self._fds += fds
        return data

    def _take(self, message: Item) -> None:
        if message["t"] != "channel":  # what matters came beside it
            super()._take(message)


def _give_one(channel: socket.socket, paths: Sequence[str]) -> bool:
    """Answer one question. False when no more will come. Raises BadInput when the file cannot be opened."""
    try:
        asked = channel.recv(64)
    except OSError:
        asked = b""
    if not asked.isdigit() or int(asked) >= len(paths):
        return False
    path = paths[int(asked)]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise BadInput(f"cannot import {path}", os.strerror(error.errno or 0), "check the path") from None
    try:
        fdpass.send(channel, asked, [fd])
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
