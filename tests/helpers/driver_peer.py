"""A process with a GPU driver of its own, which a test tells what to do, call by call.

So one suite runs on every driver, the test process never loads libcuda, and several processes share memory, are killed,
and fork, as clients and managers do. `peer.create(0, n)` is the driver's method in that process.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trims.errors import TrimsError
from trims.linux import fdpass

_PROGRAM = "import sys; from helpers.driver_peer import serve; serve(int(sys.argv[1]), int(sys.argv[2]))"


class Peer:
    """The test's end. Leaving the `with` ends the process."""

    def __init__(self, environment: dict[str, str]) -> None:
        talk, theirs = socket.socketpair()
        self._pass, passing = socket.socketpair()
        paths = [str(Path(__file__).resolve().parent.parent), *sys.path]
        with theirs, passing:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(theirs.fileno()), str(passing.fileno())],
                pass_fds=(theirs.fileno(), passing.fileno()),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
            )
        self._talk = Connection(talk.detach())

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._talk.close()
        self._pass.close()
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def do(self, what: str, *arguments: Any) -> Any:
        """One command of `_Commands`, or a method of the driver. Raises what it raises there."""
        self._talk.send((what, arguments))
        answer = self._talk.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def begin(self, what: str, *arguments: Any) -> None:
        """As `do`, without waiting for the answer: it does not come, or `answer` takes it."""
        self._talk.send((what, arguments))

    def answer(self) -> Any:
        return self._talk.recv()

    def answers(self, seconds: float) -> bool:
        """Whether the answer comes within so many seconds."""
        return self._talk.poll(seconds)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: self.do(name, *arguments)

    def give(self, fd: int, other: Peer) -> int:
        """Pass a descriptor of this process to another, over a socket; returns its number there."""
        self.do("send", fd)
        _, (here,) = fdpass.receive(self._pass, 1)
        try:
            return other.take(here)
        finally:
            os.close(here)

    def take(self, fd: int) -> int:
        """Pass a descriptor of the test's to this process; returns its number there."""
        fdpass.send(self._pass, b"x", [fd])
        return int(self.do("receive"))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def ended(self) -> int:
        """Wait for the process to end by itself; returns its status, negative for a signal."""
        return self._process.wait()


class _Commands:
    """What a peer can do beside its driver's methods."""

    def __init__(self, passing: int) -> None:
        self._pass = socket.socket(fileno=passing)
        self._maps: dict[int, mmap.mmap] = {}

    def host(self, data: bytes, writable: bool) -> int:
        """The address of host memory with these bytes, mapped writable or only readable."""
        fd = os.memfd_create("host", os.MFD_CLOEXEC)
        os.write(fd, data)
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        address = libc.mmap(None, len(data), access, mmap.MAP_SHARED, fd, 0)
        os.close(fd)
        return int(address)

    def peek(self, address: int, nbytes: int) -> bytes:
        """Host memory."""
        return ctypes.string_at(address, nbytes)

    def poke(self, address: int, data: bytes) -> None:
        ctypes.memmove(address, data, len(data))

    def send(self, fd: int) -> None:
        fdpass.send(self._pass, b"x", [fd])

    def receive(self) -> int:
        return fdpass.receive(self._pass, 1)[1][0]

    def close_fd(self, fd: int) -> None:
        os.close(fd)

    def inheritable(self, fd: int) -> bool:
        return os.get_inheritable(fd)

    def descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def end(self) -> None:
        """End the process as `exit` does."""
        os._exit(0)


def serve(talking: int, passing: int) -> None:
    """The peer's end: answer until the test hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(talking)
    commands = _Commands(passing)
    while True:
        try:
            what, arguments = connection.recv()
        except EOFError:
            return
        connection.send(_answer(commands, what, arguments))


def _answer(commands: _Commands, what: str, arguments: tuple[Any, ...]) -> Any:
    from trims.devices import drivers

    try:
        if hasattr(commands, what):
            return getattr(commands, what)(*arguments)
        if what == "forked":
            return _in_fork(lambda: _answer(commands, arguments[0], arguments[1:]))
        if what == "run":  # `program` sets `answer`
            names: dict[str, Any] = {"driver": drivers.find()}
            exec(arguments[0], names)
            return names.get("answer")
        return getattr(drivers.find(), what)(*arguments)
    except TrimsError as error:
        return error
    except Exception:
        return AssertionError("in the peer: " + traceback.format_exc())


def _in_fork(ask: Callable[[], Any]) -> Any:
    """What `ask` answers in a forked child of this process."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        Connection(theirs.detach()).send(ask())
        os._exit(0)
    theirs.close()
    try:
        return Connection(ours.detach()).recv()
    finally:
        os.waitpid(pid, 0)
