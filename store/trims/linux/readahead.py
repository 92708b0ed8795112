"""How far the kernel reads ahead of whoever reads a file in order, as the administrator or the image has it."""

from __future__ import annotations

import functools
import os


@functools.lru_cache(maxsize=64)
def nbytes(device: int) -> int:
    """Bytes for the file system on this `st_dev`; 0 where it is on no block device, or nobody says."""
    here = f"/sys/dev/block/{os.major(device)}:{os.minor(device)}"
    for queue in (f"{here}/queue", f"{here}/../queue"):  # of a partition: its disk's
        try:
            with open(f"{queue}/read_ahead_kb") as file:
                return int(file.read()) << 10
        except (OSError, ValueError):
            continue
    return 0
