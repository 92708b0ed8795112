"""One connection to one manager, shared by all threads of a process: requests out, answers and descriptors in.

Any thread may ask. Whoever waits for an answer and finds nobody reading becomes the reader and hands out what arrives,
by request id; there is no thread of our own. Descriptors queue up in order of arrival: each Attached takes its own.

What is sent goes through a queue, and whoever gets the sending lock without waiting sends all of it, looking again
after letting the lock go. So giving a lease back never waits, and may happen in the garbage collector, in any thread.

After a fork both processes hold the same socket. It is *retired* in both: no Release is sent on it any more, because
the other side may still use the lease; each closes its copy when its last model of it goes, and the kernel ends the
leases with the last copy. New requests use a new connection (`trims.client.connections`).
"""

from __future__ import annotations

import _socket  # the socket module proper wraps every constant in an enum: 3 ms of a program's first model
import itertools
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from trims.errors import ManagerUnreachable, ProtocolError, rebuild
from trims.linux import descriptors, fdpass
from trims.version import __version__
from trims.wire.framing import Decoder, encode
from trims.wire.messages import (
    VERSION,
    Attach,
    Attached,
    Hello,
    Message,
    Progress,
    Refused,
    Release,
    Request,
    Result,
    Welcome,
)

if TYPE_CHECKING:
    from trims.disk.store import Store

GRACE = 5.0
"""How much longer than a request's own timeout to wait: the manager answers by then, or it is wedged."""

_CHUNK = 1 << 16
_LONGEST = 1.0  # seconds of one wait in the kernel; long waits are many of them, so that what could not be sent is
_NOW = _socket.MSG_NOSIGNAL | _socket.MSG_DONTWAIT
_TIMEVAL = struct.Struct("@ll")
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID")


class SessionLost(ManagerUnreachable):
    """The connection ended: the manager stopped, died, or was replaced. A new connection may well work."""


class _Pending:
    """A request on its way. `answer` is what came, `fds` the descriptors that came with it."""

    __slots__ = ("answer", "fds")

    def __init__(self) -> None:
        self.answer: Message | None = None
        self.fds: list[int] = []


class Lease:
    """One lease of one session; it is given back with this object, or before. While it exists the socket stays open."""

    __slots__ = ("_session", "number")

    def __init__(self, session: Session, number: int) -> None:
        self._session = session
        self.number = number

    def release(self) -> None:
        """Give the lease back. Neither waits nor raises; twice is once."""
        self._session.release(self.number)

    __del__ = release


class Session:
    """A connection whose hello has been answered.

    welcome: who answered. serves: the store directory that was compared with the manager's, and the store in it.
    """

    def __init__(
        self, path: str, sock: _socket.socket, hello_timeout: float, meanwhile: Callable[[], object] = int
    ) -> None:
        """Takes `sock`, connected. Raises ManagerUnreachable when no manager of our version answers in time.

        meanwhile: called once hello is sent, for work of the caller that its answer need not wait for.
        """
        self.path = path
        self.serves: tuple[str, Store | None] | None = None
        self.retired = False
        self._sock = sock
        self._identity = descriptors.identity(sock.fileno())
        self._decoder = Decoder("manager")
        self._fds: deque[int] = deque()
        self._ids = itertools.count(1)
        self._waiting: dict[int, _Pending] = {}
        self._turn = threading.Condition(threading.Lock())
        self._reading = False
        self._what, self._lost = "the manager has gone", ""
        self._unwanted = False
        self._leases: set[int] = set()
        self._queue: deque[bytes] = deque()
        self._out = bytearray()
        self._sending = threading.Lock()
        self._patience = -1.0
        sock.setblocking(True)  # one call waits and receives; sending never waits
        try:
            self.welcome = self._hello(hello_timeout, meanwhile)
        except BaseException:
            sock.close()
            raise

    def attach(
        self, ref: str, place: str, variant: str, prefer: str, timeout: float
    ) -> tuple[Attached, list[int], Lease]:
        """(answer, descriptors, lease) of a resident model; the descriptors are the caller's to close.

        Raises what the manager refused with, SessionLost when it has gone, ManagerUnreachable when it does not answer.
        """
        id = next(self._ids)
        request = Attach(id=id, ref=ref, place=place, variant=variant, prefer=prefer, timeout=timeout)
        answer, fds = self._exchange(id, encode(request), timeout + GRACE)
        if not isinstance(answer, Attached) or len(fds) != answer.descriptors:
            raise ManagerUnreachable("the manager cannot be understood", "it answered an attach with something else")
        self._leases.add(answer.lease)
        return answer, fds, Lease(self, answer.lease)

    def ask(self, request: Callable[[int], Request], seconds: float) -> list[dict[str, object]]:
        """The items of the answer to a request, made with its number; what `attach` raises."""
        id = next(self._ids)
        answer, _ = self._exchange(id, encode(request(id)), seconds)
        if not isinstance(answer, Result):
            raise ManagerUnreachable("the manager cannot be understood", "it answered a question with something else")
        return answer.items

    def release(self, lease: int) -> None:
        """Give a lease back, where that is for this process to say: not after a fork. Neither waits nor raises."""
        if lease in self._leases:
            self._leases.discard(lease)
            if not (self.retired or self._lost):
                self._send(encode(Release(lease=lease)))
            self._close_if_done()

    def retire(self, in_child: bool) -> None:
        """A fork happened: this socket only holds leases from now on. A child has no other threads."""
        self.retired = True
        if in_child:
            self._turn = threading.Condition(threading.Lock())
            self._sending = threading.Lock()
            self._waiting.clear()
        self._close_if_done()

    def leave(self) -> None:
        """Send no more requests here. The connection ends with its last lease and answer: now, if there is none."""
        self._unwanted = True
        self._close_if_done()

    @property
    def usable(self) -> bool:
        """Whether new requests may be sent here."""
        return not (self.retired or self._lost or self._unwanted)

    def _close_if_done(self) -> None:
        if not (self.usable or self._leases or self._waiting):
            self._see_to_socket()
            self._sock.close()

    def _see_to_socket(self) -> None:
        """Touch the descriptor no more if a program has closed it: its number may be a connection of the program's."""
        if not descriptors.is_still(self._sock.fileno(), self._identity):
            self._sock.detach()  # what uses it from now on fails as on a lost connection

    def _hello(self, timeout: float, meanwhile: Callable[[], object]) -> Welcome:
        job = next((os.environ[name] for name in _JOB_VARIABLES if name in os.environ), "")
        hello = Hello(version=VERSION, trims=__version__, job=job)
        answer, _ = self._exchange(0, encode(hello), timeout, meanwhile)
        if not isinstance(answer, Welcome):
            raise ManagerUnreachable("the manager cannot be understood", "it did not answer hello with a welcome")
        if answer.version != VERSION:
            raise ManagerUnreachable(
                "the manager speaks another version",
                f"its protocol is {answer.version}, ours is {VERSION}",
                "restart it: `trims restart`",
            )
        return answer

    def _exchange(
        self, id: int, data: bytes, seconds: float, meanwhile: Callable[[], object] = int
    ) -> tuple[Message | None, list[int]]:
        """Send a request, call `meanwhile`, and wait so long for the answer: (message, its descriptors)."""
        pending = self._waiting[id] = _Pending()
        self._send(data)
        try:
            meanwhile()
            self._wait(pending, time.monotonic() + seconds)
        except BaseException:
            # Interrupted, or too late: what still arrives is nobody's, so no other request shall come after it.
            self._unwanted = True
            self._discard(pending.answer, pending.fds)
            raise
        finally:
            self._waiting.pop(id, None)
            self._close_if_done()
        answer = pending.answer
        if isinstance(answer, Refused):
            raise rebuild(answer.code, answer.what, answer.why, answer.hint, answer.details)
        return answer, pending.fds

    def _wait(self, pending: _Pending, deadline: float) -> None:
        while True:
            with self._turn:
                if pending.answer is not None:
                    return
                if self._lost:
                    raise SessionLost(self._what, self._lost, "see `trims status`")
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ManagerUnreachable("the manager does not answer", "", "see `trims status` and `trims logs`")
                if self._reading:
                    self._turn.wait(min(left, _LONGEST))
                    continue
                self._reading = True
            try:
                self._receive(min(left, _LONGEST))
            finally:
                with self._turn:
                    self._reading = False
                    self._turn.notify_all()

    def _receive(self, seconds: float) -> None:
        """Wait for something to arrive, at most so long, and hand it out. Only one thread at a time is here."""
        if self._out:
            self._flush(again=True)
        self._see_to_socket()
        try:
            if seconds != self._patience:
                self._sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVTIMEO, _timeval(seconds))
                self._patience = seconds
            data, fds = fdpass.receive(self._sock, _CHUNK, fdpass.MOST_FDS)
            self._fds.extend(fds)
            if not data:
                self._lose("it closed the connection")
            for message in self._decoder.feed(data) if data else ():
                self._deliver(message)
        except BlockingIOError:
            return
        except ConnectionError:
            self._lose("it closed the connection")
        except OSError as error:
            self._lose(os.strerror(error.errno or 0))
        except ProtocolError as error:
            self._what = "the manager cannot be understood"
            self._lose(str(error))

    def _deliver(self, message: Message) -> None:
        if isinstance(message, Progress):
            return
        fds = self._take_fds(message.descriptors) if isinstance(message, Attached) else []
        pending = self._waiting.get(getattr(message, "id", 0))
        if pending is None:
            self._discard(message, fds)
        else:
            pending.fds = fds
            pending.answer = message  # last: a waiter looks at this one

    def _take_fds(self, count: int) -> list[int]:
        """The next descriptors that came; fewer when fewer did."""
        return [self._fds.popleft() for _ in range(min(count, len(self._fds)))]

    def _discard(self, message: Message | None, fds: list[int]) -> None:
        """Nobody waits for this answer any more: give back what came with it."""
        fdpass.close_all(fds)
        if isinstance(message, Attached) and not (self.retired or self._lost):
            self._send(encode(Release(lease=message.lease)))
        elif isinstance(message, Refused) and message.id == 0:
            self._lose(f"{message.what}: {message.why}")

    def _lose(self, why: str) -> None:
        self._lost = self._lost or why

    def _send(self, data: bytes) -> None:
        self._queue.append(data)
        self._flush()

    def _flush(self, again: bool = False) -> None:
        """Send the queue. Whoever fails to get the lock may leave: its holder looks at the queue once more after it."""
        while (self._queue or again) and self._sending.acquire(blocking=False):
            again = False
            try:
                while self._queue:
                    self._out += self._queue.popleft()
                self._see_to_socket()
                while self._out:
                    del self._out[: self._sock.send(self._out, _NOW)]
            except BlockingIOError:
                return  # the reader, or the next message, goes on
            except OSError as error:
                self._out.clear()
                self._queue.clear()
                if not self._waiting:  # otherwise the reader finds out, after what the manager may have said before
                    self._lose(os.strerror(error.errno or 0))
            finally:
                self._sending.release()


def _timeval(seconds: float) -> bytes:
    """A struct timeval, rounded up: zero would mean for ever."""
    microseconds = int(seconds * 1e6) + 1
    return _TIMEVAL.pack(microseconds // 1_000_000, microseconds % 1_000_000)
