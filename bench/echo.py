"""A server of one selectors loop: every message is answered with the bytes of an attach's answer and a descriptor."""

from __future__ import annotations

import os
import selectors
import socket
import sys

from trims.linux import fdpass

ANSWER = b"x" * 220


def main() -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen()
    fd = os.memfd_create("echo")
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            assert isinstance(sock, socket.socket)
            if sock is listener:
                accepted = listener.accept()[0]
                accepted.setblocking(False)
                selector.register(accepted, selectors.EVENT_READ)
            elif sock.recv(4096):
                fdpass.send(sock, ANSWER, [fd])
            else:
                selector.unregister(sock)
                sock.close()


if __name__ == "__main__":
    main()
