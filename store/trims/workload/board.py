"""The table that a run's processes share: one row a request, in a memfd that the coordinator and all clients map.

Each row has one writer at a time: the coordinator until the request's number is in the ticket pipe, then the client
that took it, then the process that serves it, and after that has ended the client again. `state` is written last, so a
reader that finds it set finds the rest. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.workload import outcomes

WAITING, TAKEN, SERVED, FAILED = 0, 1, 2, 3
REASON = 240  # bytes of a reason; a longer one is cut

ROW: Final = np.dtype(
    [
        ("state", "u1"),
        ("how", "u1"),
        ("client", "i4"),
        ("model", "i4"),
        ("pid", "i4"),
        ("taken", "f8"),
        ("asked", "f8"),
        ("began", "f8"),
        ("ready", "f8"),
        ("done", "f8"),
        ("checksum", "u8"),
        ("cached", "f8"),
        ("why", f"S{REASON}"),
    ],
    align=True,
)


class Board:
    """The mapped table; `rows` is ROW[n]. A context manager: its end gives map and descriptor back."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, os.fstat(fd).st_size)
        self.rows: npt.NDArray[Any] = np.frombuffer(self._map, dtype=ROW)

    @classmethod
    def make(cls, models: npt.NDArray[np.int32]) -> Board:
        """A fresh one for requests that ask for these models, by position."""
        fd = os.memfd_create("trims-workload")
        os.ftruncate(fd, max(1, len(models)) * ROW.itemsize)
        board = cls(fd)
        board.rows["client"] = -1
        board.rows["model"][: len(models)] = models
        board.rows["cached"] = np.nan
        return board

    def close(self) -> None:
        del self.rows
        self._map.close()
        os.close(self.fd)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fail(self, request: int, why: str, now: float) -> None:
        """The request came to nothing."""
        row = self.rows[request]
        if not row["asked"]:
            row["asked"] = now
        row["done"] = now
        row["why"] = why.encode("utf-8", "replace")[:REASON]
        row["state"] = FAILED

    def reason(self, request: int) -> str:
        return bytes(self.rows[request]["why"]).decode("utf-8", "replace")

    def outcomes(self, count: int, began: float) -> outcomes.Outcomes:
        """OUTCOME[m] of the requests that ended among the first `count`, in seconds since `began`."""
        rows = self.rows[:count]
        (ended,) = np.nonzero(rows["state"] >= SERVED)
        rows = rows[ended]
        made = outcomes.empty(len(rows))
        made["request"], made["client"], made["model"] = ended, np.maximum(rows["client"], 0), rows["model"]
        made["how"] = np.where(rows["state"] == SERVED, rows["how"], outcomes.FAILED)
        for name in outcomes.TIMES:
            made[name] = np.where(rows[name] > 0, rows[name] - began, np.nan)
        return made
