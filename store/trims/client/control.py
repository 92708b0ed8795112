"""Asking the manager, for the command line: frames of plain JSON over its socket, with no typed messages to load.

A connection is made to the first candidate where a manager answers its greeting in time. Whatever is in the way is told
apart: nobody there (ManagerNotRunning), or somebody who cannot be talked to (ManagerUnreachable): wedged, of another
version, another user's. A refused request raises the very error the manager had.
"""

from __future__ import annotations

import _socket  # the socket module proper wraps every constant in an enum: 6 ms
import errno
import os
import time

from trims import errors
from trims.errors import ManagerNotRunning, ManagerUnreachable, ProtocolError, TrimsError
from trims.linux import process
from trims.version import __version__
from trims.wire.header import FOREVER, MANAGER_LIMIT, VERSION, Splitter, pack

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Item = dict[str, Any]

GREETING = 2.0  # seconds a living manager may take to say welcome: its loop never blocks, so this is a loaded machine
GRACE = 5.0  # seconds beyond a request's own timeout, by which the manager has to have answered
_LONGEST = 1e7  # seconds a socket can be told to wait
_BROKEN = "the manager ended while it was asked"


class Control:
    """One connection. `welcome` is the manager's greeting: trims, pid, identity, store, store_id."""

    def __init__(self, sockets: list[str], greeting: float = GREETING) -> None:
        self.socket_path, self._sock = _first(sockets)
        self._splitter = Splitter(MANAGER_LIMIT)
        self._frames: list[bytes] = []
        self._answers: dict[int, Item] = {}
        self._listeners: dict[int, Callable[[int, int], None]] = {}
        self._requests = 0
        try:
            hello = f'{{"t":"hello","version":{VERSION},"trims":"{__version__}","job":"{job(os.environ)}"}}'
            self._send(hello.encode())
            self._welcome = self._next(time.monotonic() + greeting, "it does not answer its greeting")
            if b'"welcome"' not in self._welcome:  # by its own words: it refuses us, or is no manager
                raise _error(_parse(self._welcome))
        except ProtocolError as error:
            self.close()
            raise ManagerUnreachable(
                f"the manager at {self.socket_path} cannot be talked to", str(error), "restart it with this trims"
            ) from None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._sock.close()

    @property
    def welcome(self) -> Item:
        """The manager's greeting; parsed when asked for, so that a mere greeting loads no JSON."""
        return _parse(self._welcome)

    def request(
        self, t: str, progress: Callable[[int, int], None] | None = None, wait: float = 60.0, **fields: Any
    ) -> list[Item]:
        """The items of the answer. progress(done, total) is called as a load goes on; wait: the request's own timeout.

        Raises the manager's refusal, or ManagerUnreachable when no answer comes in time or the manager ends.
        """
        return self.finish([self.begin(t, progress, **fields)], wait)[1]

    def begin(self, t: str, progress: Callable[[int, int], None] | None = None, **fields: Any) -> int:
        """Send a request without waiting for its answer; gives its number."""
        import json

        self._requests += 1
        if progress is not None:
            self._listeners[self._requests] = progress
        endless = {key: FOREVER for key, value in fields.items() if value == float("inf")}
        message = {"t": t, "id": self._requests, **fields, **endless}
        self._send(json.dumps(message, separators=(",", ":")).encode())
        return self._requests

    def finish(self, numbers: list[int], wait: float = 60.0) -> tuple[int, list[Item]]:
        """(number, items) of the first of these requests to be answered. Raises its refusal."""
        deadline = time.monotonic() + wait + GRACE
        while not (done := [number for number in numbers if number in self._answers]):
            self._take(_parse(self._next(deadline, "it did not answer in time")))
        answer = self._answers.pop(done[0])
        if answer["t"] == "refused":
            raise _error(answer)
        return done[0], answer.get("items", [])

    def _take(self, message: Item) -> None:
        number = message.get("id", 0)
        if message["t"] == "progress":
            if number in self._listeners:
                self._listeners[number](message["done"], message["total"])
        elif number == 0 and message["t"] == "refused":
            raise _error(message)
        else:
            self._answers[number] = message

    def wait_closed(self, wait: float) -> bool:
        """Whether the manager closes the connection within `wait` seconds: it has ended."""
        deadline = time.monotonic() + wait
        try:
            while True:
                self._next(deadline, "")
        except ManagerUnreachable as error:
            return error.why == _BROKEN

    def _send(self, body: bytes) -> None:
        data = pack(body)
        try:
            while data:
                data = data[self._sock.send(data, _socket.MSG_NOSIGNAL) :]
        except OSError:
            pass  # it has closed: what it said before is still to be read, and then its end

    def _next(self, deadline: float, late: str) -> bytes:
        """The body of the next message."""
        while not self._frames:
            try:
                self._sock.settimeout(max(0.001, min(deadline - time.monotonic(), _LONGEST)))
                self._receive()
            except TimeoutError:
                raise ManagerUnreachable(
                    f"the manager at {self.socket_path} is stuck", late, "see `trims logs`, then `trims restart --now`"
                ) from None
        return self._frames.pop(0)

    def _receive(self) -> None:
        """Take what arrives, within the socket's timeout. Raises TimeoutError."""
        try:
            data = self._recv()
        except TimeoutError:
            raise
        except OSError:
            data = b""
        if not data:
            raise ManagerUnreachable("the manager is gone", _BROKEN, "see `trims logs`")
        self._frames += self._splitter.split(data)

    def _recv(self) -> bytes:
        return self._sock.recv(1 << 16)


def _parse(body: bytes) -> Item:
    import json

    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("the manager's message is malformed", str(error)) from None
    if not isinstance(message, dict) or not isinstance(message.get("t"), str):
        raise ProtocolError("the manager's message is malformed", "it is no message")
    return message


def job(environ: Any) -> str:
    """The batch job this process runs in, `123_4` for an array's task; "" outside one."""
    array, task = environ.get("SLURM_ARRAY_JOB_ID"), environ.get("SLURM_ARRAY_TASK_ID")
    words = f"{array}_{task}" if array and task else environ.get("SLURM_JOB_ID", "")
    return "".join(c for c in words if c.isalnum() or c == "_")


def _first(sockets: list[str]) -> tuple[str, _socket.socket]:
    """The first candidate that takes a connection. Raises when there is none."""
    denied = ""
    for path in sockets:
        refuse_strangers(path, named=len(sockets) == 1)
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            process.connect(sock, path, GREETING)
            _refuse_stranger(sock, path, named=len(sockets) == 1)
            return path, sock
        except ManagerUnreachable:
            sock.close()
            raise
        except TimeoutError:
            sock.close()
            raise ManagerUnreachable(f"the manager at {path} is stuck", "it takes no connection") from None
        except OSError as error:
            sock.close()
            if error.errno in (errno.EACCES, errno.EPERM):
                denied = denied or path
            elif error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise ManagerUnreachable(f"cannot connect to {path}", str(error.args[-1])) from None
    if denied:
        raise ManagerUnreachable(f"the manager at {denied} cannot be used", "it belongs to another user")
    raise ManagerNotRunning("no manager is running", f"looked at {', '.join(sockets)}", "start one with `trims start`")


def refuse_strangers(path: str, named: bool) -> None:
    """Raise ManagerUnreachable when a socket that was not named lies where another user could have put it.

    The system's directory is root's or the service's business; one under TMPDIR must be ours alone.
    """
    directory = os.path.dirname(path)
    if named or directory == "/run/trims":
        return
    try:
        found = os.stat(directory)
    except OSError:
        return
    if found.st_uid != os.getuid():
        raise ManagerUnreachable(
            f"{directory} cannot be trusted", f"it belongs to user {found.st_uid}", "name a socket with --socket"
        )
    if found.st_mode & 0o077:
        raise ManagerUnreachable(f"{directory} cannot be trusted", "others can enter it", f"chmod 700 {directory}")


def _refuse_stranger(sock: _socket.socket, path: str, named: bool) -> None:
    """The same of who listens, once connected: the directory may have been put there since it was looked at."""
    uid = process.peer(sock)[1]
    if not named and os.path.dirname(path) != "/run/trims" and uid not in (0, os.getuid()):
        raise ManagerUnreachable(
            f"the manager at {path} is not used", f"it belongs to user {uid}", "name a socket with --socket"
        )


def _error(message: Item) -> TrimsError:
    known = {key: message.get(key, "") for key in ("code", "what", "why", "hint")}
    return errors.rebuild(**known, details=dict(message.get("details", {})))
