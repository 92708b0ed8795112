"""One client's connection: what arrives is decoded, what is to go out waits its turn; no call here ever blocks.

A client is sent the descriptors of one answer at a time: until the kernel says that it has taken what was sent,
everything after it waits. So a client that does not read can hold those of one answer in flight, not the user's whole
allowance of them.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import termios
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trims.linux import fdpass
from trims.wire.framing import Decoder

if TYPE_CHECKING:
    from trims.manager.recording import Asked
    from trims.manager.variants import Errand
    from trims.permission import Asker
    from trims.residency.events import Key, Who
    from trims.residency.foreseeing import Foresight
    from trims.wire.messages import Message

Step = Callable[["list[dict[str, object]] | None", "dict[str, object] | None"], bool]
"""Called with the items, or the error: whether it has taken them, so that the client is not answered yet."""
QUEUE_LIMIT = 4 << 20
"""Bytes of answers that a client may leave unread before it is let go."""
INBOX_LIMIT = 256
"""Messages that may wait behind one that is being looked up; then no more is read."""
BACKLOG_LIMIT = 1 << 20
"""Bytes of such messages, about."""
_CHUNK = 1 << 16


class Connection:
    """`number` names it to the machine. `who` is None until it has said hello. `leases`: key of each it holds."""

    __slots__ = (
        "_decoder",
        "_given",
        "_out",
        "asked",
        "backlog",
        "closed",
        "closing",
        "descriptor_since",
        "errand",
        "fd",
        "foresight",
        "inbox",
        "leases",
        "number",
        "out_nbytes",
        "parked",
        "sock",
        "stalled",
        "steps",
        "tenant",
        "uid",
        "watching",
        "who",
    )

    def __init__(self, number: int, sock: socket.socket, uid: int, tenant: Asker | None = None) -> None:
        self.number, self.sock, self.fd, self.uid = number, sock, sock.fileno(), uid
        self.who: Who | None = None
        self.tenant = tenant  # None: one who may do everything
        self.steps: dict[int, Step] = {}  # what takes the machine's answer to a request, before the client does
        self.leases: dict[int, Key] = {}
        self.asked: dict[int, Asked] = {}  # requests that have no answer yet, for the recording
        self.foresight: dict[str, Foresight] = {}  # of the dry runs that belong together, by place
        self.inbox: deque[Message] = deque()
        self.parked = 0  # id of the request that is being looked up
        self.backlog = 0  # bytes that came since something has been waiting in the inbox
        self.errand: Errand | None = None
        self.closing = self.closed = False
        self.descriptor_since = 0.0  # when a descriptor was sent that may not have been taken yet
        self.out_nbytes = 0
        self.stalled = False  # what is to be sent waits for something that is not room in the socket
        self.watching = 0  # what the loop's poll watches it for
        self._decoder = Decoder("client")
        self._out: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._given: set[int] = set()  # descriptors in it that are ours to close

    def receive(self) -> list[Message] | None:
        """What has arrived; None when the connection has ended. Raises ProtocolError."""
        try:
            data = self.sock.recv(_CHUNK)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        if self.parked or self.inbox:
            self.backlog += len(data)
        return self._decoder.feed(data)

    @property
    def full(self) -> bool:
        """Whether enough waits in the inbox: what follows shall wait in the client."""
        if not self.inbox:
            self.backlog = 0
        return len(self.inbox) >= INBOX_LIMIT or self.backlog >= BACKLOG_LIMIT

    @property
    def kept_nbytes(self) -> int:
        """Bytes that we keep for this client: what is not read, and what is not sent."""
        return self._decoder.pending + self.backlog + self.out_nbytes

    def queue(self, frame: bytes, fds: Sequence[int] = (), given: bool = False) -> None:
        """Send this later; the descriptors go with its first byte. They stay the caller's, unless they are given."""
        if self.closing or self.closed:
            if given:
                fdpass.close_all(list(fds))
            return
        self._out.append((memoryview(frame), fds))
        self.out_nbytes += len(frame)
        if given:
            self._given.update(fds)

    @property
    def pending(self) -> bool:
        return bool(self._out)

    def undelivered(self) -> bool:
        """Whether the client has yet to take the descriptor it was sent last."""
        if not self.descriptor_since:
            return False
        left = array.array("i", [0])
        fcntl.ioctl(self.sock, termios.TIOCOUTQ, left)
        if left[0] > 1:  # while the kernel wakes us for the last byte it still counts one
            return True
        self.descriptor_since = 0.0
        return False

    def send(self, now: float) -> None:
        """Send what can be sent now. Raises OSError when the connection has ended."""
        self.stalled = False
        while self._out:
            if self.descriptor_since and self.undelivered():
                self.stalled = True
                return
            view, fds = self._out[0]
            try:
                if not fds:
                    sent = self.sock.send(view)
                else:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sent = self.sock.sendmsg([view], [rights])
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ETOOMANYREFS:
                    raise
                self.stalled = True  # too many descriptors of this user in flight: when some are taken, it goes on
                return
            if fds:
                self.descriptor_since = now
                if self._given:
                    fdpass.close_all([fd for fd in fds if fd in self._given])
                    self._given.difference_update(fds)
            self.out_nbytes -= sent
            if sent == len(view):
                self._out.popleft()
            else:
                self._out[0] = (view[sent:], ())

    def close(self) -> None:
        self.closed = True
        self._out.clear()
        while self._given:
            os.close(self._given.pop())
        self.sock.close()
