"""The two agreements with a service manager: a socket that it listens on for us, and word of how we are."""

from __future__ import annotations

import os
import socket


def notify(text: str) -> None:
    """Tell the service manager (sd_notify(3)), if there is one. A lost word is no failure of ours."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect("\0" + address[1:] if address[0] == "@" else address)
            sock.send(text.encode())
    except OSError:
        pass


def activated() -> bool:
    """Whether a service manager has opened our socket, so that it exists without anybody serving it."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def listener() -> socket.socket | None:
    """The socket that was opened for us (sd_listen_fds(3)), or None."""
    if not activated():
        return None
    sock = socket.socket(fileno=3)
    sock.set_inheritable(False)
    return sock if sock.family == socket.AF_UNIX and sock.type == socket.SOCK_STREAM else None
