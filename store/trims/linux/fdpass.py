"""Bytes with descriptors over a Unix socket. A descriptor, unlike a name, needs no namespace and cannot be raced.

`socket.recv_fds` of Python 3.11 ignores its flags and so leaks descriptors into children; plain `recv` drops them
silently. Both are avoided here.
"""

from __future__ import annotations

import array
import os
import socket

from trims.errors import ProtocolError

MAX_FDS = 4
_TRUNCATED = int(socket.MSG_CTRUNC)  # a plain number: flags of an enum cost 5 us a call
_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_SO_PASSRIGHTS = 83  # <asm-generic/socket.h>, since Linux 6.16
_CONTROL = socket.CMSG_SPACE(array.array("i").itemsize * MAX_FDS)


def send(sock: socket.socket, data: bytes | memoryview, fds: list[int]) -> int:
    """Send what fits of `data`, the descriptors with its first byte; returns the bytes sent."""
    if not fds:
        return sock.send(data)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def receive(sock: socket.socket, limit: int) -> tuple[bytes, list[int]]:
    """Up to `limit` bytes and the descriptors that came with them, close-on-exec. b"" is the end of the stream.

    Raises ProtocolError when descriptors were cut off; those that arrived are closed first.
    """
    data, control, flags, _ = sock.recvmsg(limit, _CONTROL, _CLOEXEC)
    fds = array.array("i")
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    if flags & _TRUNCATED:
        close_all(fds.tolist())
        raise ProtocolError("a message was refused", "it carried more descriptors than the protocol allows")
    return data, fds.tolist()


def refuse(listener: socket.socket) -> None:
    """Have the kernel refuse descriptors that are sent to the connections of a listening socket.

    Dropping one can take as long as its sender likes: a TCP socket lingers. Linux before 6.16 cannot: it drops them.
    """
    if refuses():
        listener.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def refuses() -> bool:
    """Whether this kernel can refuse descriptors."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
        except OSError:
            return False
    return True


def close_all(fds: list[int]) -> None:
    """Close every descriptor of the list."""
    for fd in fds:
        os.close(fd)
