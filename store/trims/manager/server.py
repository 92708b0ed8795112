"""The loop: sockets, timers and news from threads, in; answers, out. It owns all state and never waits for a client.

Each turn: wait until something happens or a timer is due; read what clients sent and hand it to the service; let the
service come to rest (what it decided is in the index by then); then send. So whoever is answered finds the index up to
date. A client that breaks a rule is told once (Refused, id 0) and closed; nobody else notices.

Rules for clients: hello first, within HELLO seconds; well-formed frames; at most QUEUE_LIMIT unread bytes; a descriptor
is taken within DELIVERY seconds; no more connections of one user than the cap.
"""

from __future__ import annotations

import heapq
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from trims.errors import ProtocolError, TrimsError
from trims.linux import process
from trims.manager.connection import QUEUE_LIMIT, Connection
from trims.manager.doors import Doors
from trims.manager.entrance import Entrance
from trims.wire.framing import encode
from trims.wire.messages import Message, Refused

HELLO = 10.0
DELIVERY = 1.0
USER_LIMIT = 64 << 20
"""Bytes of unsent answers and unfinished requests of all connections of one user of a shared manager."""
_NOTABLE = 1 << 17
RETRY = 0.02
"""Seconds until an undelivered descriptor is looked at again, should the kernel's word not reach us."""
_READ, _BROKEN = select.EPOLLIN, select.EPOLLHUP | select.EPOLLERR


class Service(Protocol):
    """What the loop serves."""

    def message(self, connection: Connection, message: Message) -> None:
        """A message; the connection has not closed. Raises ProtocolError when the client broke the protocol."""

    def closed(self, connection: Connection) -> None: ...

    def rest(self, now: float) -> float | None:
        """The turn's messages are through: bring everything up to date. When to be called again at the latest."""


class Server:
    """The loop. `serve` runs it until `stop`."""

    def __init__(
        self, listener: socket.socket, service: Service, log: Callable[[str, str], None], doors: Doors, cap: int
    ) -> None:
        self.connections: dict[int, Connection] = {}
        self._service, self._log, self._doors, self._cap = service, log, doors, cap
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._numbers = count(1)
        self._per_uid: Counter[int] = Counter()
        self._to_send: dict[Connection, None] = {}
        self._greeting: dict[Connection, float] = {}  # by when each is to have said hello, oldest first
        self._undelivered: dict[Connection, None] = {}
        self._stalled: dict[Connection, None] = {}
        self._again = False  # something changed after the service came to rest
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._running = True
        self._entrance = Entrance(listener, self, log, self._take)

    # ---- for the service

    def send(self, connection: Connection, frame: bytes, fds: Sequence[int] = (), given: bool = False) -> None:
        """Send a frame, at the end of this turn, with descriptors that stay the caller's, unless they are given."""
        connection.queue(frame, fds, given)
        if not connection.closed:
            self._to_send[connection] = None

    def refuse(self, connection: Connection, error: TrimsError) -> None:
        """Tell the client why, and close the connection when that is sent."""
        if connection.closing or connection.closed:
            return
        self.send(connection, encode(Refused(0, error.code, error.what, error.why, error.hint, error.details)))
        connection.closing = True
        self.at(time.monotonic() + DELIVERY, lambda: self.drop(connection))

    def drop(self, connection: Connection, why: str = "") -> None:
        """End a connection now. Twice is once."""
        if connection.closed:
            return
        if why:
            pid = connection.who.pid if connection.who else 0
            self._log(f"closing the connection of pid {pid}: {why}", "warning")
        self._poll.unregister(connection.fd)
        del self._handlers[connection.fd]
        self.connections.pop(connection.number, None)
        self._to_send.pop(connection, None)
        self._undelivered.pop(connection, None)
        self._stalled.pop(connection, None)
        self._greeting.pop(connection, None)
        self._again = True
        self._per_uid[connection.uid] -= 1
        connection.close()
        self._service.closed(connection)
        self._entrance.reopen()

    def resume(self, connection: Connection) -> None:
        """What the connection waited for is there: go on with the messages behind it."""
        while connection.inbox and not (connection.parked or connection.closed or connection.closing):
            self._hand_over(connection, connection.inbox.popleft())
        self._rewatch(connection)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Make this call when its time has come."""
        heapq.heappush(self._timers, (when, next(self._numbers), call))

    def watch(self, fd: int, call: Callable[[int], None]) -> None:
        """Make this call whenever `fd` is readable."""
        self._handlers[fd] = call
        self._poll.register(fd, _READ)

    def unwatch(self, fd: int) -> None:
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stop(self) -> None:
        """Let this turn be the last."""
        self._running = False

    # ---- the loop

    def serve(self) -> None:
        """Turn until stopped."""
        due: float | None = None
        while True:
            now = time.monotonic()
            patience = 0.0 if self._again else self._patience(due, now)
            self._again = False
            for fd, events in self._poll.poll(patience):
                handler = self._handlers.get(fd)
                if handler is not None:
                    handler(events)
            self._run_timers(time.monotonic())
            due = self._service.rest(time.monotonic())
            self._send_all(time.monotonic())
            if not self._running:
                return

    def finish(self, seconds: float) -> None:
        """Send what is still to be sent, for so long at most, then close every connection."""
        deadline = time.monotonic() + seconds
        self.stop_listening()
        while self._to_send and (left := deadline - time.monotonic()) > 0:
            for fd, events in self._poll.poll(min(left, RETRY)):
                handler = self._handlers.get(fd)
                if handler is not None and events & (_BROKEN | select.EPOLLOUT):
                    handler(events & ~_READ)
            self._send_all(time.monotonic())
        for connection in list(self.connections.values()):
            self.drop(connection)
        self._poll.close()

    def stop_listening(self) -> None:
        self._entrance.close()

    def _patience(self, due: float | None, now: float) -> float:
        times = [when for when in (due, self._timers[0][0] if self._timers else None) if when is not None]
        if self._stalled:
            times.append(now + RETRY)
        if self._undelivered:
            times.append(next(iter(self._undelivered)).descriptor_since + DELIVERY)
        if self._greeting:
            times.append(next(iter(self._greeting.values())))
        return max(0.0, min(times) - now) if times and min(times) < now + 3600 else 3600.0

    def _run_timers(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        while self._undelivered:
            connection = next(iter(self._undelivered))
            if connection.descriptor_since + DELIVERY > now and connection.descriptor_since:
                break
            del self._undelivered[connection]
            if connection.undelivered():
                self.drop(connection, f"it did not take a descriptor within {DELIVERY:g} s")
        while self._greeting:
            connection, by = next(iter(self._greeting.items()))
            if by > now and connection.who is None:
                break
            del self._greeting[connection]
            if connection.who is None:
                self.drop(connection, "it did not say hello")
        self._to_send.update(self._stalled)

    # ---- connections

    def _take(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        _, uid, _ = process.peer(sock)
        tenant, refusal = None, None
        try:
            tenant = self._doors.admit(sock)
        except TrimsError as error:
            refusal = error
        connection = Connection(next(self._numbers), sock, uid, tenant)
        self._per_uid[uid] += 1
        self.connections[connection.number] = connection
        self._handlers[connection.fd] = lambda events: self._on_client(connection, events)
        connection.watching = _READ
        self._poll.register(connection.fd, _READ)
        if refusal is not None:
            self.refuse(connection, refusal)
        elif self._per_uid[uid] > self._cap:
            self.refuse(connection, TrimsError("too many connections", f"one user may have {self._cap}"))
        else:
            self._greeting[connection] = time.monotonic() + HELLO

    def _on_client(self, connection: Connection, events: int) -> None:
        if events & select.EPOLLOUT:
            self._to_send[connection] = None
        if not events & (_READ | _BROKEN):
            return
        try:
            messages = connection.receive()
            if messages is None:
                self.drop(connection)
                return
            for message in messages:
                if connection.parked or connection.inbox:
                    connection.inbox.append(message)
                elif not (connection.closed or connection.closing):
                    self._hand_over(connection, message)
        except ProtocolError as error:
            self.refuse(connection, error)
        if connection.full:
            self._rewatch(connection)
        if connection.tenant is not None and connection.kept_nbytes > _NOTABLE:
            self._bound_user(connection)

    def _bound_user(self, connection: Connection) -> bool:
        """Whether all that is kept for a tenant's connections may be: one has 4 MiB, a thousand of them have not."""
        if connection.closed:
            return False
        kept = sum(other.kept_nbytes for other in self.connections.values() if other.uid == connection.uid)
        if kept > USER_LIMIT:
            self.drop(connection, "its user leaves too much unread and unfinished")
            return False
        return True

    def _hand_over(self, connection: Connection, message: Message) -> None:
        try:
            self._service.message(connection, message)
        except ProtocolError as error:
            self.refuse(connection, error)

    # ---- sending

    def _send_all(self, now: float) -> None:
        while self._to_send:
            connection, _ = self._to_send.popitem()
            self._send(connection, now)

    def _send(self, connection: Connection, now: float) -> None:
        try:
            connection.send(now)
        except OSError:
            self.drop(connection)
            return
        if connection.descriptor_since:
            if connection.descriptor_since == now:
                self._undelivered.pop(connection, None)  # to the end: the oldest comes first
            self._undelivered[connection] = None
        if connection.stalled:
            self._stalled[connection] = None
        elif self._stalled:
            self._stalled.pop(connection, None)
        if connection.out_nbytes > QUEUE_LIMIT:
            self.drop(connection, "it does not read its answers")
        elif connection.tenant is not None and connection.kept_nbytes > _NOTABLE and not self._bound_user(connection):
            return
        elif connection.closing and not connection.pending:
            self.drop(connection)
        else:
            self._rewatch(connection)

    def _rewatch(self, connection: Connection) -> None:
        """Watch a connection for what it waits for: to be written to, to take a descriptor, to be read from."""
        if connection.closed:
            return
        wanted = 0 if connection.closing or connection.full else _READ
        if connection.pending:
            wanted |= select.EPOLLOUT
            if connection.stalled:  # it is writable all the time: only a change is news
                wanted |= select.EPOLLET
        if wanted != connection.watching:
            connection.watching = wanted
            self._poll.modify(connection.fd, wanted)
