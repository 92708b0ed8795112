"""Whether a file system lets go of the page cache of a file: tmpfs, for one, has nowhere else to keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LOOK = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(fd)
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
os.preadv(fd, [bytearray(4096)], 0, os.RWF_NOWAIT)
"""


def need_dropping(directory: Path) -> None:
    """Skip the test where a dropped file can still be read without waiting for the disk."""
    path = directory / "dropped"
    path.write_bytes(os.urandom(1 << 16))
    try:
        looked = subprocess.run([sys.executable, "-c", _LOOK, str(path)], capture_output=True, text=True)
    finally:
        path.unlink()
    if "BlockingIOError" not in looked.stderr:
        pytest.skip("this file system keeps its pages")
