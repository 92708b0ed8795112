"""Who a process is. A pid alone is no identity: it is pid and start time, which the kernel never reuses together."""

from __future__ import annotations

import os
import struct

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    import socket

_CRED = struct.Struct("@iII")
_SOL_SOCKET, _SO_PEERCRED = 1, 17  # <asm-generic/socket.h>; the socket module is heavy, and its user has it already


def peer(sock: socket.socket) -> tuple[int, int, int]:
    """(pid, uid, gid) of the process that connected `sock`, as the kernel saw it then."""
    pid, uid, gid = _CRED.unpack(sock.getsockopt(_SOL_SOCKET, _SO_PEERCRED, _CRED.size))
    return pid, uid, gid


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
    try:
        with open(membership) as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return limit
    for _, controllers, path in lines:
        if controllers == "":
            limit = min(limit, _tree_limit(root, path, "memory.max"))
            limit = min(limit, _tree_limit(f"{root}/unified", path, "memory.max"))
        elif "memory" in controllers.split(","):
            limit = min(limit, _tree_limit(f"{root}/memory", path, "memory.limit_in_bytes"))
    return limit


def _tree_limit(root: str, path: str, name: str) -> int:
    least = 1 << 63
    while True:
        try:
            with open(f"{root}{path.rstrip('/')}/{name}") as file:
                text = file.read().strip()
            if text != "max":
                least = min(least, int(text))
        except (OSError, ValueError):
            pass
        if path in ("", "/"):
            return least
        path = path.rpartition("/")[0]
