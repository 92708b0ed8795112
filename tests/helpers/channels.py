"""Imports by way of a manager whose client answers by hand, so that they can be caught at any moment."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.raw import PATIENCE, Raw
from trims.disk.store import Store
from trims.linux import fdpass
from trims.wire.messages import Channel, Import


class Importer(Raw):
    """A client that answers its channel by hand."""

    def begin(self, *files: str, **fields: Any) -> None:
        """Ask for an import, and take the channel."""
        self.id = self.next_id()
        self.send(Import(id=self.id, ref="m", files=list(files), **fields))
        assert self.receive() == Channel(self.id)
        self.channel = socket.socket(fileno=self.fds.pop())
        self.channel.settimeout(PATIENCE)

    def asked(self) -> int:
        return int(self.channel.recv(64))

    def give(self, number: int, *fds: int) -> None:
        fdpass.send(self.channel, str(number).encode(), list(fds))

    def close(self) -> None:
        if hasattr(self, "channel"):
            self.channel.close()
        super().close()


def left(store: Store) -> list[str]:
    return os.listdir(store.paths.tmp)


def children(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found.update(map(int, path.read_text().split()))
    return found


@contextmanager
def half_way(manager: Any, two: tuple[str, str]) -> Iterator[tuple[Importer, int]]:
    """An import that has copied the first of two files, and the number of its process."""
    with Importer(manager.runtime.socket) as client:
        client.begin("a.npz", "b.json")
        assert client.asked() == 0
        with open(two[0], "rb") as file:
            client.give(0, file.fileno())
        assert client.asked() == 1
        (child,) = children(manager.pid)
        yield client, child


def wait_for_end(pid: int) -> None:
    """Of a process that is not ours."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([fd], [], [], PATIENCE)[0], "it lives on"
    finally:
        os.close(fd)
