"""Bytes with descriptors over a Unix socket. A descriptor, unlike a name, needs no namespace and cannot be raced.

`socket.recv_fds` of Python 3.11 ignores its flags and so leaks descriptors into children; plain `recv` drops them
silently. Both are avoided here.
"""

from __future__ import annotations

import _socket  # the socket module proper wraps every constant in an enum: 3 ms
import os
import struct

from trims.errors import ProtocolError

MAX_FDS = 4
"""Descriptors that a message may carry, unless its reader says otherwise."""
MOST_FDS = 253
"""What the kernel lets one message carry (SCM_MAX_FD)."""
_INT = struct.calcsize("@i")
_TRUNCATED = _socket.MSG_CTRUNC
_CLOEXEC = _socket.MSG_CMSG_CLOEXEC
_SO_PASSRIGHTS = 83  # <asm-generic/socket.h>, since Linux 6.16


def send(sock: _socket.socket, data: bytes | memoryview, fds: list[int]) -> int:
    """Send what fits of `data`, the descriptors with its first byte; returns the bytes sent."""
    if not fds:
        return sock.send(data)
    return sock.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"@{len(fds)}i", *fds))])


def receive(sock: _socket.socket, limit: int, most: int = MAX_FDS) -> tuple[bytes, list[int]]:
    """Up to `limit` bytes and the descriptors that came with them, close-on-exec. b"" is the end of the stream.

    most: how many may come at once.

    Raises ProtocolError when descriptors were cut off; those that arrived are closed first.
    """
    data, control, flags, _ = sock.recvmsg(limit, _socket.CMSG_SPACE(_INT * most), _CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in control:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            whole = len(payload) // _INT
            fds += struct.unpack_from(f"@{whole}i", payload)
    if flags & _TRUNCATED:
        close_all(fds)
        raise ProtocolError("a message was refused", "it carried more descriptors than the protocol allows")
    return data, fds


def refuse(listener: _socket.socket) -> None:
    """Have the kernel refuse descriptors that are sent to the connections of a listening socket.

    Dropping one can take as long as its sender likes: a TCP socket lingers. Linux before 6.16 cannot: it drops them.
    """
    if refuses():
        listener.setsockopt(_socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)


def refuses() -> bool:
    """Whether this kernel can refuse descriptors."""
    sock = _socket.socket(_socket.AF_UNIX)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _SO_PASSRIGHTS, 0)
    except OSError:
        return False
    finally:
        sock.close()
    return True


def close_all(fds: list[int]) -> None:
    """Close every descriptor of the list."""
    for fd in fds:
        os.close(fd)
