"""Small real file systems: a test body run in a child with a mount namespace of its own, on a tmpfs of a given size."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNS = 0x20000  # <linux/sched.h>
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x4000, 0x40000  # <sys/mount.h>
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def on_tmpfs(directory: Path, size: str, body: Callable[[Path], None]) -> None:
    """Run `body(directory)` with a tmpfs of that size mounted there; it fails the test by raising."""
    directory.mkdir(exist_ok=True)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _call(_libc.unshare(CLONE_NEWNS))
            _call(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
            _call(_libc.mount(b"tmpfs", bytes(directory), b"tmpfs", 0, f"size={size}".encode()))
            body(directory)
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-4000:])
            os._exit(1)
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:
        report = pipe.read().decode()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, report


def make_read_only(directory: Path) -> None:
    """Remount the tmpfs of `on_tmpfs` read-only."""
    _call(_libc.mount(b"tmpfs", bytes(directory), b"tmpfs", MS_REMOUNT | MS_RDONLY, None))
