"""Memory that other processes can map and none can change: sealed memfds.

A region is made writable, filled, and then sealed against shrinking, growing, future writing and further sealing;
what is handed out is a second, read-only descriptor of a file of mode 0400. That combination, with a maker that is not
dumpable, was the only one that a client of the same user could not write to by any route tried: seals alone leave
/proc/PID/mem of the maker open, and mode bits alone fall to a chmod by the same user.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os

from trims.errors import NoRoom
from trims.linux import step

F_SEAL_FUTURE_WRITE = 0x10  # <linux/fcntl.h>, Linux 5.1; not named by Python
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | F_SEAL_FUTURE_WRITE
MADV_POPULATE_WRITE = 23  # <linux/mman.h>, Linux 5.14; not named by Python
PR_SET_DUMPABLE = 4
PAGE = mmap.PAGESIZE

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def pages(nbytes: int) -> int:
    """`nbytes` rounded up to whole pages, at least one."""
    return max(PAGE, -(-nbytes // PAGE) * PAGE)


def create(name: str, nbytes: int) -> int:
    """A writable memfd of `nbytes` whole pages, its memory reserved. Raises NoRoom when the kernel has none."""
    fd = os.memfd_create(name[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        resize(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def resize(fd: int, nbytes: int) -> None:
    """Make an unsealed memfd `nbytes` long. Growth is reserved, so that filling cannot die of SIGBUS. Raises NoRoom."""
    step("memfd resize")
    try:
        os.ftruncate(fd, nbytes)
    except OSError as error:
        raise NoRoom(
            "no memory for a region", os.strerror(error.errno or 0), "evict something, or lower the budget"
        ) from None


def reserve(fd: int, offset: int, nbytes: int) -> None:
    """Allocate the pages of a span now. Raises NoRoom when memory or the cgroup's limit does not allow it."""
    step("memfd reserve")
    try:
        os.posix_fallocate(fd, offset, nbytes)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.ENOMEM):
            raise NoRoom(
                "no memory for a region", os.strerror(error.errno), "evict something, or lower the budget"
            ) from None
        raise


def populate(map: mmap.mmap, offset: int, nbytes: int) -> None:
    """Give a span of a writable map its pages now, without the interpreter's lock. Raises NoRoom.

    Unlike `reserve` this also enters them in the page tables, so the filling takes no fault. Kernels before 5.14 do
    not know it: there the filling takes its faults.
    """
    step("memfd populate")
    if not nbytes:
        return
    address = ctypes.addressof(ctypes.c_char.from_buffer(map, offset))
    if _LIBC.madvise(address, nbytes, MADV_POPULATE_WRITE) == 0:
        return
    number = ctypes.get_errno()
    if number in (errno.ENOMEM, errno.EFAULT):
        raise NoRoom("no memory for a region", os.strerror(errno.ENOMEM), "evict something, or lower the budget")
    if number != errno.EINVAL:
        raise OSError(number, os.strerror(number))


def huge_pages_allowed() -> bool:
    """Whether the administrator lets shared memory have huge pages when it asks for them."""
    try:
        with open("/sys/kernel/mm/transparent_hugepage/shmem_enabled") as file:
            text = file.read()
            return any(word in text for word in ("[always]", "[within_size]", "[advise]", "[force]"))
    except OSError:
        return False


def seal(fd: int) -> int:
    """Seal the filled memfd, set its mode to 0400, and return a read-only descriptor of it. `fd` stays open."""
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    os.fchmod(fd, 0o400)
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)


def is_sealed(fd: int) -> bool:
    """Whether nobody can ever change the bytes behind `fd` any more."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS == SEALS
    except OSError:
        return False


def make_undumpable() -> None:
    """Keep other processes of the same user out of this one's memory (no ptrace, no /proc/PID/mem, no core dump)."""
    _LIBC.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
