"""Who a process is. A pid alone is no identity: it is pid and start time, which the kernel never reuses together."""

from __future__ import annotations

import errno
import os
import struct
import time

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    import _socket
    import socket

_CRED = struct.Struct("@iII")
_SOL_SOCKET, _SO_PEERCRED, _SO_PEERGROUPS = (
    1,
    17,
    59,
)  # <asm-generic/socket.h>; the socket module is heavy, and its user has it already
_FEW = 1024  # bytes: the most that Python's getsockopt gives room for
_MOST_GROUPS = 65536  # NGROUPS_MAX
_AGAIN = 0.001  # seconds between two tries to connect


def peer(sock: _socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process that connected `sock`, as the kernel saw it then."""
    pid, uid, gid = _CRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _CRED.size))
    return pid, uid, gid


def peer_groups(sock: socket.socket) -> list[int]:
    """The groups, its own first, of the process that connected `sock`, as the kernel saw them then (SO_PEERGROUPS)."""
    gid = peer(sock)[2]
    try:
        data = sock.getsockopt(_SOL_SOCKET, _SO_PEERGROUPS, _FEW)
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
        data = _many_groups(sock.fileno())
    return [gid, *struct.unpack(f"@{len(data) // 4}I", data)]


def _many_groups(fd: int) -> bytes:
    """For those in more groups than Python's own call has room for."""
    import ctypes

    buffer = ctypes.create_string_buffer(4 * _MOST_GROUPS)
    length = ctypes.c_uint32(len(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.getsockopt(fd, _SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(length)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return buffer.raw[: length.value]


def connect(sock: _socket.socket, path: str, seconds: float) -> None:
    """Connect within so many seconds, which stay the socket's timeout. Raises OSError.

    Who does not block is told EAGAIN at once when the listener's queue is full, as in a storm: that is tried again.
    """
    deadline = time.monotonic() + seconds
    sock.settimeout(seconds)
    while True:
        try:
            return sock.connect(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise TimeoutError("its queue of connections is full") from None
            time.sleep(_AGAIN)


def unmapped_ids() -> tuple[int, int]:
    """(uid, gid) that the kernel shows for whoever has no number in our user namespace."""
    return _unmapped("overflowuid"), _unmapped("overflowgid")


def _unmapped(name: str) -> int:
    try:
        with open(f"/proc/sys/kernel/{name}") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 65534


def start_time(pid: int) -> int:
    """The start time of `pid` in clock ticks since boot (field 22 of proc(5) stat), or 0 when there is none such."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0
    return int(fields[19]) if len(fields) > 19 else 0


def is_alive(pid: int, started: int) -> bool:
    """Whether that very process still runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return len(fields) > 19 and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def watch(pid: int) -> int:
    """A pidfd: readable when `pid` ends. Raises ProcessLookupError when it has."""
    return os.pidfd_open(pid)


def memory_limit(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes of memory this process may use: the least of physical memory and every ancestor cgroup's limit.

    membership: a file of cgroups(7) lines; root: where the hierarchies are mounted.
    """
    limit = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for directory, name, _ in _memory_groups(membership, root):
        limit = min(limit, _number(f"{directory}/{name}"))
    return limit


def memory_available(membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup") -> int:
    """Bytes that could be allocated now without swapping or an OOM kill, as the kernel estimates it.

    The least of MemAvailable and what every ancestor cgroup has left; its file cache counts as free.
    """
    free = _field("/proc/meminfo", "MemAvailable:") * 1024
    for directory, limit, usage in _memory_groups(membership, root):
        most = _number(f"{directory}/{limit}")
        if most < _NONE:
            prefix = "total_" if limit.endswith("in_bytes") else ""
            cache = sum(_field(f"{directory}/memory.stat", f"{prefix}{kind}_file") for kind in ("active", "inactive"))
            free = min(free, most - _number(f"{directory}/{usage}") + cache)
    return max(0, free)


_NONE = 1 << 62  # above it a cgroup file means no limit, or there is no such file


def _memory_groups(membership: str, root: str) -> list[tuple[str, str, str]]:
    """(directory, its limit file, its usage file) of the memory cgroup and its ancestors, in every hierarchy."""
    try:
        with open(membership) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    found = []
    for _, controllers, path in lines:
        if controllers == "":
            mounts, files = [root, f"{root}/unified"], ("memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            mounts, files = [f"{root}/memory"], ("memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        for mount in mounts:
            at = path.rstrip("/")
            while True:
                found.append((mount + at, *files))
                if not at:
                    break
                at = at.rpartition("/")[0]
    return found


def _number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):  # not there, or "max"
        return _NONE


def _field(path: str, name: str) -> int:
    try:
        with open(path) as file:
            for line in file:
                words = line.split()
                if words[:1] == [name]:
                    return int(words[1])
    except (OSError, ValueError, IndexError):
        pass
    return _NONE if name == "MemAvailable:" else 0


def end_with_parent(signal: int = 9) -> None:
    """Have the kernel send this process `signal` when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2))."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal, 0, 0, 0)
