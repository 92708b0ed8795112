"""A scripted peer on a real socket: what a manager may say, rightly or wrongly, for tests of the client's side."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.gpu_regions import Made
from trims.linux import fdpass, memfd
from trims.manifest import Manifest, TensorSpec, table_bytes
from trims.wire.framing import Decoder, encode
from trims.wire.messages import VERSION, Attach, Attached, Hello, Message, Welcome

Script = Callable[["Peer"], None]


class Peer:
    """One accepted connection, seen from the manager's side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.heard: list[Message] = []
        self._decoder = Decoder("client")

    def hear(self) -> Message | None:
        """The next message, or None when the client has closed."""
        while not self.heard:
            data = self.sock.recv(1 << 16)
            if not data:
                return None
            self.heard += self._decoder.feed(data)
        return self.heard.pop(0)

    def say(self, *messages: Message, fds: tuple[int, ...] = ()) -> None:
        fdpass.send(self.sock, b"".join(encode(message) for message in messages), list(fds))

    def welcome(self, version: int = VERSION, store_id: str = "s" * 32) -> None:
        """Hear Hello and answer it."""
        assert isinstance(self.hear(), Hello)
        self.say(Welcome(version=version, trims="0", pid=os.getpid(), identity="i", store="/s", store_id=store_id))

    def attach(self, lease: int = 7) -> Attach:
        """Hear Attach and grant it."""
        request = self.hear()
        assert isinstance(request, Attach)
        self.grant(request, lease)
        return request

    def grant(self, request: Attach, lease: int) -> None:
        """Answer `request` with a region of one tensor `w`: four float32, each the number of the lease."""
        fd, span, table = region(float(lease))
        try:
            self.say(
                Attached(
                    id=request.id, lease=lease, digest="d" * 64, variant="raw", place="host",
                    map_nbytes=memfd.pages(span + table), table=(span, table),
                ),
                fds=(fd,),
            )  # fmt: skip
        finally:
            os.close(fd)

    def attach_gpu(self, made: Made, lease: int = 7) -> Attach:
        """Hear Attach and grant it with a region on a simulated GPU."""
        request = self.hear()
        assert isinstance(request, Attach)
        self.grant_gpu(request, made, lease)
        return request

    def grant_gpu(self, request: Attach, made: Made, lease: int, **changes: object) -> None:
        """Answer `request` with a region on a simulated GPU; changes: fields of the answer that are other."""
        self.say(made.answer(request.id, lease, **changes), fds=tuple(made.fds))


def region(value: float) -> tuple[int, int, int]:
    """(descriptor, bytes of the span, bytes of the table) of a sealed region with the tensor `w`."""
    import numpy as np

    manifest = Manifest((TensorSpec("w", "float32", (4,), "0" * 64),))
    table, span = table_bytes(manifest), manifest.layout.nbytes
    writable = memfd.create("test", memfd.pages(span + len(table)))
    try:
        os.pwrite(writable, np.full(4, value, np.float32).tobytes(), 0)
        os.pwrite(writable, table, span)
        return memfd.seal(writable), span, len(table)
    finally:
        os.close(writable)


@contextmanager
def listening(path: Path, *scripts: Script) -> Iterator[list[BaseException]]:
    """Accept one connection for each script, in order, and run it; errors of scripts fail the test at the end."""
    failures: list[BaseException] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(8)

        def serve() -> None:
            for script in scripts:
                sock, _ = server.accept()
                with sock:
                    try:
                        script(Peer(sock))
                    except BaseException as error:
                        failures.append(error)

        thread = threading.Thread(target=serve, name="peer")
        thread.start()
        try:
            yield failures
        finally:
            if failures or thread.is_alive():
                server.shutdown(socket.SHUT_RDWR)  # an accept that nobody will answer ends
            thread.join(20)
    assert not thread.is_alive()
    if failures:
        raise failures[0]
