"""A client of the manager that is nothing but a socket and frames: what any language could write, and do wrong."""

from __future__ import annotations

import mmap
import os
import socket
import time
from typing import Any

from trims.linux import fdpass
from trims.manifest import RegionTable, parse_table
from trims.wire.framing import Decoder, encode
from trims.wire.messages import Attach, Attached, Hello, Message, Progress, Refused, Release, Result

PATIENCE = 20.0


class Raw:
    """One connection. Every wait ends after PATIENCE at the latest, with TimeoutError."""

    def __init__(self, path: object, hello: bool = True) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(str(path))
        self._decoder = Decoder("manager")
        self._messages: list[Message] = []
        self._answers: dict[int, Message] = {}
        self.fds: list[int] = []
        self._id = 0
        if hello:
            self.send(Hello(version=1, trims="raw", job="test"))
            self.welcome = self.receive()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()
        fdpass.close_all(self.fds)
        self.fds.clear()

    def send(self, *messages: Message) -> None:
        self.sock.sendall(b"".join(encode(m) for m in messages))

    def receive(self) -> Any:
        """The next message; ConnectionResetError at the end of the stream."""
        while not self._messages:
            data, fds = fdpass.receive(self.sock, 1 << 16)
            self.fds += fds
            if not data:
                raise ConnectionResetError
            self._messages += self._decoder.feed(data)
        return self._messages.pop(0)

    def next_id(self) -> int:
        self._id += 1
        return self._id

    def answer(self, id: int) -> Any:
        """The answer to a request; progress is skipped, answers to others are kept for their turn."""
        while id not in self._answers:
            message = self.receive()
            if isinstance(message, Attached | Result | Refused):
                self._answers[message.id] = message
            else:
                assert isinstance(message, Progress), message
        return self._answers.pop(id)

    def ask(self, cls: type[Any], **fields: Any) -> Any:
        """Send a request and give its answer."""
        id = self.next_id()
        self.send(cls(id=id, **fields))
        return self.answer(id)

    def attach(self, ref: str, **fields: Any) -> Attached:
        """Attach; the descriptor is the last of `fds`. Fails when refused."""
        answer = self.ask(Attach, ref=ref, **fields)
        assert isinstance(answer, Attached), answer
        return answer

    def release(self, lease: int) -> None:
        self.send(Release(lease=lease))

    def closed_by_peer(self) -> bool:
        """Whether the manager ends the connection, after whatever it still says."""
        try:
            while True:
                self.receive()
        except (ConnectionResetError, BrokenPipeError):
            return True
        except TimeoutError:
            return False


def contents(fd: int, answer: Attached) -> tuple[bytes, RegionTable]:
    """What a region holds: all its bytes, and its parsed table."""
    with mmap.mmap(fd, answer.map_nbytes, prot=mmap.PROT_READ) as map:
        data = bytes(map)
    offset, nbytes = answer.table
    return data, parse_table(data[offset : offset + nbytes])


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def shared_bytes(pid: int) -> int:
    """Bytes of memfds that a process holds open or has mapped, each file once, as the kernel has allocated them."""
    found: dict[int, int] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith("/memfd:"):
                stat = os.stat(path)
                found[stat.st_ino] = stat.st_blocks * 512
        except FileNotFoundError:
            continue
    return sum(found.values())


def until(condition: Any, client: Raw, seconds: float = PATIENCE) -> float:
    """Seconds until `condition()` holds; between looks the manager is asked something, which makes it turn."""
    from trims.wire.messages import Status

    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "it did not come to hold"
        client.ask(Status)
    return time.monotonic() - start
