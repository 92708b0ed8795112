"""What a test must leave as it found it: open descriptors, threads, child processes, mappings of shared memory.

A snapshot before and one after are compared; whatever is new is a leak and is named. Processes get a moment to end,
waited for on their pidfds. The test process adopts orphans (PR_SET_CHILD_SUBREAPER), so that a manager that a test
started and forgot is seen although it left its parent long ago.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import select
import signal
import sys
import threading
import time
import warnings
from dataclasses import dataclass

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
GRACE = 5.0  # seconds that processes and threads have to end by themselves

# Opened once by a library and kept for good; the last is ONNX Runtime's database of its own use.
_KEPT_TARGETS = ("/dev/urandom", "/dev/null", "/dev/nvidia", "/.onnxruntime/onnxruntime.db")


@dataclass(frozen=True)
class Snapshot:
    fds: dict[int, str]
    threads: frozenset[int]
    children: frozenset[int]
    memfds: dict[str, int]
    limits: dict[str, tuple[int, int]]


def adopt_orphans() -> None:
    """Make processes whose parent ends children of this one."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def take() -> Snapshot:
    return Snapshot(open_fds(), frozenset(t.ident or 0 for t in threading.enumerate()), children(), memfds(), limits())


def open_fds() -> dict[int, str]:
    """Descriptor → what it is open on, for this process; those that libraries keep are left out."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue  # the descriptor of this very listing
        if not any(kept in target for kept in _KEPT_TARGETS):
            found[int(name)] = target
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        found.pop(tracker._resource_tracker._fd, None)
    return found


def children() -> frozenset[int]:
    """Pids of the living and dead children of this process; multiprocessing's own helper is left out."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                found.update(int(pid) for pid in file.read().split())
        except OSError:
            continue  # the thread has ended
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    if tracker is not None:
        found.discard(tracker._resource_tracker._pid)
    return frozenset(found)


def memfds() -> dict[str, int]:
    """Mappings of memfds in this process: `name inode` → how many."""
    found: dict[str, int] = {}
    with open("/proc/self/maps") as file:
        for line in file:
            if "/memfd:" in line:
                fields = line.split(None, 5)
                key = f"{fields[5].strip()} inode {fields[4]}"
                found[key] = found.get(key, 0) + 1
    return found


def limits() -> dict[str, tuple[int, int]]:
    """The resource limits of this process, which no test may leave changed: other tests would fail far from it."""
    names = ("RLIMIT_AS", "RLIMIT_CORE", "RLIMIT_CPU", "RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE")
    return {name: resource.getrlimit(getattr(resource, name)) for name in names}


def forget_failure() -> None:
    """Let go of what the traceback of a failed test held, so that the next test is not blamed for it."""
    sys.last_type = sys.last_value = sys.last_traceback = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def describe(pid: int) -> str:
    """`pid N (its command line)`."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        words = "ended"
    return f"pid {pid} ({words[:200] or 'a zombie'})"


def wait_ended(pids: set[int], seconds: float) -> set[int]:
    """Wait for `pids`, children of this process, to end; reap them; return those that live on."""
    deadline = time.monotonic() + seconds
    left = set()
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(fd)
        if not ready:
            left.add(pid)
            continue
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass  # reaped by its owner, or not ours
    return left


def kill(pids: set[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_ended(pids, GRACE)


def end_of_threads(before: Snapshot) -> list[str]:
    deadline = time.monotonic() + GRACE
    left = []
    for thread in threading.enumerate():
        if thread.ident not in before.threads and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                left.append(f"thread {thread.name}")
    return left


def leaked(before: Snapshot) -> list[str]:
    """What is there now and was not at `before`, in words. Processes among it are killed, so that others stay clean."""
    found = end_of_threads(before)
    stray = wait_ended(set(children() - before.children), GRACE)
    found += [f"process {describe(pid)}" for pid in sorted(stray)]
    kill(stray)
    now = _settled(before)
    found += [f"descriptor {fd} -> {target}" for fd, target in now.fds.items() if before.fds.get(fd) != target]
    found += [
        f"{count - before.memfds.get(key, 0)} mapping(s) of {key}"
        for key, count in now.memfds.items()
        if count > before.memfds.get(key, 0)
    ]
    found += [
        f"{name} is {now.limits[name]}, was {was}" for name, was in before.limits.items() if now.limits[name] != was
    ]
    return found


def _settled(before: Snapshot) -> Snapshot:
    """A snapshot, after a garbage collection if the first one shows anything new: cycles may hold descriptors."""
    now = take()
    if now.fds != before.fds or now.memfds != before.memfds:
        gc.collect()
        now = take()
    return now
