"""Which pages of a copy-on-write map a process has to itself: what its page tables say (proc_pid_pagemap(5))."""

from __future__ import annotations

import mmap
import os

import numpy as np

_ENTRIES = 1 << 17  # read at a time: a MiB of them, which tell of 512 MiB of small pages
_IN_USE = np.uint64(0b11 << 62)  # present, or swapped out
_OF_A_FILE = np.uint64(1 << 61)  # or of shared memory; a copy made by a write is neither


def written(address: int, nbytes: int) -> int:
    """Bytes, in whole pages, that this process has copied by writing to the private map of a file at `address`.

    Raises OSError where /proc does not let a process look at itself.
    """
    size = mmap.PAGESIZE
    first, end = address // size, -(-(address + nbytes) // size)
    pages = 0
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        while first < end:
            data = os.pread(fd, 8 * min(_ENTRIES, end - first), 8 * first)
            entries = np.frombuffer(data, np.uint64, len(data) // 8)
            if not len(entries):
                break
            pages += int(np.count_nonzero((entries & _IN_USE != 0) & (entries & _OF_A_FILE == 0)))
            first += len(entries)
    finally:
        os.close(fd)
    return pages * size
