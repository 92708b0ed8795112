"""Starting to write dirty pages to the disk without waiting, so that the fsync which follows finds little left to do.

It is a hint. It promises nothing about durability, and consumes no error that fsync would have reported.
"""

from __future__ import annotations

import ctypes

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.sync_file_range.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_WRITE = 2  # SYNC_FILE_RANGE_WRITE, <fcntl.h>


def begin(fd: int, offset: int, nbytes: int) -> None:
    """Have the kernel start on these bytes. A file system that cannot is left to fsync."""
    _LIBC.sync_file_range(fd, offset, nbytes, _WRITE)
