"""The process's connections: one session a socket path, made on first use, replaced when lost, left alone by a fork.

The only state is the table of sessions. A fork empties it in both processes (the sessions live on in their leases), so
parent and child speak on connections of their own; spawned processes start with an empty table anyway.
"""

from __future__ import annotations

import _socket  # the socket module proper wraps every constant in an enum: 3 ms of a program's first model
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from trims.client.session import Lease, Session, SessionLost
from trims.errors import ManagerNotRunning, ManagerUnreachable, UsageError
from trims.linux import process
from trims.wire.messages import Attached, Request

T = TypeVar("T")
HELLO_TIMEOUT = 0.25
"""Seconds for connect and hello together. A manager that takes longer does not serve anybody in time."""

INSISTENT = 2.0
"""The same where its place was asked for: of hundreds of processes that start at once each has its turn."""

_sessions: dict[str, Session] = {}
_forks = 0


def session(path: str, meanwhile: Callable[[], object] = int, patience: float = HELLO_TIMEOUT) -> Session:
    """The process's session with the manager at `path`, whose hello is answered.

    meanwhile: called when a new session waits for that answer. patience: seconds to wait for it.
    Raises ManagerNotRunning when none listens there (details: stale=True when one once did), ManagerUnreachable when
    what listens is wedged, of another version or another user's.
    """
    found = _sessions.get(path)
    if found is not None and found.usable:
        return found
    while True:
        forks = _forks
        made = Session(path, _connect(path, patience), patience, meanwhile)
        if forks == _forks:
            break
        made.leave()  # another thread forked meanwhile: the child has this socket too
    kept = _sessions.setdefault(path, made)
    if not kept.usable:
        kept = _sessions[path] = made
    if kept is not made:
        made.leave()  # another thread was faster
    return kept


def attach(
    path: str, ref: str, place: str, variant: str, prefer: str, timeout: float
) -> tuple[Attached, list[int], Lease]:
    """`Session.attach` on the process's session. A session found dead is replaced once: the manager was restarted."""
    return _with(path, lambda session: session.attach(ref, place, variant, prefer, timeout))


def ask(path: str, request: Callable[[int], Request], seconds: float) -> list[dict[str, object]]:
    """`Session.ask` on the process's session, replaced as `attach` does."""
    return _with(path, lambda session: session.ask(request, seconds))


def _with(path: str, exchange: Callable[[Session], T]) -> T:
    known = _sessions.get(path)
    if known is not None and known.usable:
        try:
            return exchange(known)
        except SessionLost:
            pass
    return exchange(session(path))


def close_idle() -> None:
    """End every connection without leases now, and the others with their last lease."""
    for known in list(_sessions.values()):
        known.leave()
    _sessions.clear()


def _connect(path: str, patience: float) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        process.connect(sock, path, patience)
        _check_owner(sock, path)
    except (FileNotFoundError, NotADirectoryError):
        sock.close()
        raise ManagerNotRunning("no manager is running", f"there is no {path}", "start one: `trims start`") from None
    except ConnectionRefusedError:
        sock.close()
        raise ManagerNotRunning(
            "no manager is running", f"{path} is left from one that ended", "start one: `trims start`", stale=True
        ) from None
    except OSError as error:
        sock.close()
        if "too long" in str(error):
            raise UsageError(f"bad socket {path!r}", "it is longer than 107 bytes", "choose a shorter path") from None
        why = os.strerror(error.errno) if error.errno else "it does not accept connections"
        raise ManagerUnreachable(f"the manager at {path} cannot be reached", why, "see `trims status`") from None
    except BaseException:
        sock.close()
        raise
    return sock


def _check_owner(sock: _socket.socket, path: str) -> None:
    """Anybody can listen in a directory that anybody can make: refuse weights from a stranger there."""
    uid = process.peer(sock)[1]
    if uid in (0, os.getuid()):
        return
    parent = os.path.dirname(os.path.dirname(path)) or "/"
    if os.stat(parent).st_mode & stat.S_IWOTH:
        raise ManagerUnreachable(
            f"the manager at {path} is not used", f"it belongs to user {uid}", "name another socket with TRIMS_SOCKET"
        )


def _forked(in_child: bool) -> None:
    global _forks
    _forks += 1
    for known in list(_sessions.values()):
        known.retire(in_child)
    _sessions.clear()


os.register_at_fork(after_in_parent=lambda: _forked(False), after_in_child=lambda: _forked(True))
