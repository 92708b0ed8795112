"""The first process of a container, and the one outside that waits for it. Stands alone: run as a script.

`container_init.py JSON`: new namespaces (user, pid, mount, net, ipc, uts) are made, a line is said, and one byte is
waited for on standard input, in which time the caller maps users. Then the first process is started; its number as the
outside sees it is said. It has a root of its own with nothing but `readonly` and `shared` directories
(outside: inside), read-only unless it `serves`: then there is /proc, too. It becomes `command` with `environment` and
nothing else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

NAMESPACES = 0x10000000 | 0x20000000 | 0x20000 | 0x40000000 | 0x8000000 | 0x4000000  # <linux/sched.h>: CLONE_NEW*
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MS_RELATIME = 0x1, 0x20, 0x1000, 0x4000, 0x40000, 1 << 21
_LOCKED = os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME  # the same bits in mount(2)
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    words = [None if word is None else word.encode() for word in (source, target, kind)]
    _call(_libc.mount(*words, flags, options.encode() if options else None), f"mounting {source} on {target}")


def _bind(source: int, target: str, readonly: bool) -> None:
    os.makedirs(target, exist_ok=True)
    _mount(f"/proc/self/fd/{source}", target, None, MS_BIND | MS_REC)
    if readonly:
        flags = os.statvfs(target).f_flag & _LOCKED  # what the outside has set cannot be taken off here
        _mount("none", target, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_RELATIME | flags)


def _opened(plan: dict) -> dict[str, int]:
    """The directories to be shared, open: the way to them may be closed to who we are going to be."""
    paths = [path for path in (*plan["readonly"], *plan["shared"]) if not os.path.islink(path)]
    return {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}


def _enter(root: str, plan: dict, opened: dict[str, int]) -> None:
    """Leave for a root with nothing in it but what the plan says."""
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount("tmpfs", root, "tmpfs", 0, "size=1m,mode=755")
    for path in plan["readonly"]:
        if os.path.islink(path):  # /lib -> usr/lib
            os.symlink(os.readlink(path), root + path)
        else:
            _bind(opened[path], root + path, True)
    for path, inside in plan["shared"].items():
        _bind(opened[path], root + inside, not plan["serves"])
    if plan["serves"]:
        os.mkdir(f"{root}/proc")
        _mount("proc", f"{root}/proc", "proc", 0)
    os.chdir(root)
    _call(_libc.pivot_root(b".", b"."), "changing the root")
    _call(_libc.umount2(b".", MNT_DETACH), "leaving the old root")
    os.chdir("/")


def main() -> None:
    plan = json.loads(sys.argv[1])
    _call(_libc.unshare(NAMESPACES), "making namespaces")
    os.write(1, b"unshared\n")
    os.read(0, 1)
    pid = os.fork()
    if pid == 0:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        opened = _opened(plan)
        os.setgid(0)
        os.setuid(0)
        _enter(plan["root"], plan, opened)
        os.execve(plan["command"][0], plan["command"], plan["environment"])
    os.write(1, b"%d\n" % pid)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 0xFF)


if __name__ == "__main__":
    main()
