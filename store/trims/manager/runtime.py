"""The runtime directory: ours to write, one living manager in it, its lock before its socket.

One of user scope is closed to others. In one of system scope they find the socket, and can open nothing else.

The lock is taken before anything is touched and ends with the process, however that ends; only its holder may remove
a socket that a dead manager left.
"""

from __future__ import annotations

import os
import socket
import stat
import threading

from trims.errors import ManagerUnreachable, NotPermitted, UsageError
from trims.linux import atomic, flock
from trims.paths import RuntimePaths

MAX_SOCKET = 107
"""The longest path of a Unix socket (sun_path without its last byte)."""
PATIENCE = 10.0
"""Seconds to wait for the lock: a manager that is just ending gives it up in far less."""


def prepare(paths: RuntimePaths, system: bool = False) -> None:
    """Make the directory, or see that it is fit: a directory, ours, closed to others. Raises NotPermitted.

    system: others can enter it, and cannot write there.
    """
    if len(os.fsencode(paths.socket)) > MAX_SOCKET:
        raise UsageError(
            f"the path of the socket is longer than {MAX_SOCKET} bytes", paths.socket, "name another with --socket"
        )
    try:
        if not os.path.isdir(paths.directory):
            atomic.make_directory(os.path.dirname(paths.directory))
            os.mkdir(paths.directory, 0o700)
            if system:
                os.chmod(paths.directory, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise atomic.translate(error, f"making {paths.directory}") from None
    _check(paths.directory, system)
    if not os.access(paths.directory, os.W_OK):
        raise NotPermitted(
            f"{paths.directory} cannot hold a manager's socket",
            "nothing can be written there",
            "name another socket with --socket",
        )


def _check(directory: str, system: bool) -> None:
    found = os.lstat(directory)
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if system and not (ours and found.st_mode & 0o011 == 0o011 and not found.st_mode & 0o022):
        raise NotPermitted(
            f"{directory} cannot hold a shared manager's socket",
            "it has to be a directory of your own that others can enter, and not write to",
            f"chmod 755 {directory}, or name another socket with --socket",
        )
    if not system and not (ours and not found.st_mode & 0o077):
        raise NotPermitted(
            f"{directory} cannot hold a manager's socket",
            "it has to be a directory of your own that others cannot enter",
            f"chmod 700 {directory}, or name another socket with --socket",
        )


def start_lock(paths: RuntimePaths) -> str:
    """The path of the lock by which starters take turns, made so that nobody else can take it."""
    path = f"{paths.directory}/start"
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        os.chmod(path, 0o600)
    except OSError as error:
        raise atomic.translate(error, f"opening {path}") from None
    return path


def own(paths: RuntimePaths, patience: float = PATIENCE) -> int:
    """The descriptor of the lock, taken; keep it open. Raises ManagerUnreachable when another manager keeps it."""
    try:
        fd = os.open(paths.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise atomic.translate(error, f"opening {paths.lock}") from None
    if flock.own(fd):
        return fd
    taken = threading.Event()

    def wait() -> None:
        flock.wait_own(fd)
        taken.set()

    threading.Thread(target=wait, name="trims-lock", daemon=True).start()
    if taken.wait(patience):
        return fd
    raise ManagerUnreachable(
        "another manager runs in this directory", f"it holds {paths.lock}", "stop it: `trims stop`, or kill it"
    )


class Tenure:
    """Whether the directory is still the one whose lock we took: it may be deleted under us and made anew by others."""

    def __init__(self, paths: RuntimePaths) -> None:
        self._path = paths.lock
        self._lock = self._found()

    def lasts(self) -> bool:
        return self._found() == self._lock is not None

    def _found(self) -> tuple[int, int] | None:
        try:
            found = os.lstat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino  # not used again while we hold it open


def listen(paths: RuntimePaths, system: bool = False) -> socket.socket:
    """A listening socket at its path, mode 0600, or 0666 for all. The caller holds the lock. Raises NotPermitted."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        if os.path.lexists(paths.socket):
            if not stat.S_ISSOCK(os.lstat(paths.socket).st_mode):
                raise NotPermitted(f"{paths.socket} is no socket", "something else has its name", "remove it")
            os.unlink(paths.socket)
        umask = os.umask(0o111 if system else 0o177)
        try:
            sock.bind(paths.socket)
        finally:
            os.umask(umask)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        raise atomic.translate(error, f"listening at {paths.socket}") from None
    except BaseException:
        sock.close()
        raise
    return sock
