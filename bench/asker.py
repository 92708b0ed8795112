"""A bare client: asks as fast as it is answered, for a while; prints requests a second."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable

from trims.linux import fdpass
from trims.wire import messages
from trims.wire.framing import Decoder, encode


def asking(sock: socket.socket) -> Callable[[], None]:
    """One attach and its release, the answer decoded and its descriptor closed, nothing mapped."""
    decoder = Decoder("manager")
    sock.sendall(encode(messages.Hello(version=messages.VERSION)))
    decoder.feed(sock.recv(65536))
    request = encode(messages.Attach(id=1, ref="m"))

    def ask() -> None:
        sock.sendall(request)
        answers: list[messages.Message] = []
        while not answers:
            data, fds = fdpass.receive(sock, 65536)
            fdpass.close_all(fds)
            answers = decoder.feed(data)
        if not isinstance(answers[0], messages.Attached):
            raise RuntimeError(f"refused: {answers[0]}")
        sock.sendall(encode(messages.Release(lease=answers[0].lease)))

    return ask


def echoing(sock: socket.socket) -> Callable[[], None]:
    request = b"x" * 60

    def ask() -> None:
        sock.sendall(request)
        _, fds = fdpass.receive(sock, 65536)
        for fd in fds:
            os.close(fd)

    return ask


def main() -> None:
    spec = json.loads(sys.argv[1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.connect(spec["path"])
        ask = asking(sock) if spec["way"] == "attach" else echoing(sock)
        ask()
        print("ready", flush=True)
        sys.stdin.readline()
        done, begun = 0, time.perf_counter()
        end = begun + spec["seconds"]
        while time.perf_counter() < end:
            for _ in range(50):
                ask()
            done += 50
        print(done / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
