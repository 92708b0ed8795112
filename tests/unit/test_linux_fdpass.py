from __future__ import annotations

import array
import fcntl
import os
import socket
from collections.abc import Iterator

import pytest

from trims.errors import ProtocolError
from trims.linux import fdpass

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with a, b:
        yield a, b


def test_a_descriptor_arrives_close_on_exec_and_open(pair: Pair) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)
    assert fdpass.send(pair[0], b"hello", [reader]) == 5
    os.close(reader)
    data, fds = fdpass.receive(pair[1], 100)
    assert data == b"hello" and len(fds) == 1
    assert fcntl.fcntl(fds[0], fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(writer, b"x")
    assert os.read(fds[0], 1) == b"x"
    fdpass.close_all([*fds, writer])


def test_bytes_without_descriptors(pair: Pair) -> None:
    fdpass.send(pair[0], memoryview(b"abc"), [])
    assert fdpass.receive(pair[1], 2) == (b"ab", [])
    assert fdpass.receive(pair[1], 2) == (b"c", [])
    pair[0].close()
    assert fdpass.receive(pair[1], 2) == (b"", [])


def test_descriptors_stay_with_their_bytes(pair: Pair) -> None:
    """Two messages with a descriptor each are never received as one: the second's would be taken for the first's."""
    for text in (b"one", b"two"):
        fd = os.open("/dev/null", os.O_RDONLY)
        fdpass.send(pair[0], text, [fd])
        os.close(fd)
    for text in (b"one", b"two"):
        data, fds = fdpass.receive(pair[1], 100)
        assert data == text and len(fds) == 1
        fdpass.close_all(fds)


def test_too_many_descriptors_are_refused_and_closed(pair: Pair) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(fdpass.MAX_FDS + 1)]
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
    pair[0].sendmsg([b"x"], [rights])
    fdpass.close_all(fds)
    open_before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError, match="more descriptors"):
        fdpass.receive(pair[1], 100)
    assert set(os.listdir("/proc/self/fd")) == open_before


def test_as_many_as_allowed_arrive(pair: Pair) -> None:
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(fdpass.MAX_FDS)]
    fdpass.send(pair[0], b"x", fds)
    _, received = fdpass.receive(pair[1], 100)
    assert len(received) == fdpass.MAX_FDS
    fdpass.close_all(fds + received)


def test_a_socket_without_data_does_not_block(pair: Pair) -> None:
    pair[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        fdpass.receive(pair[1], 1)
