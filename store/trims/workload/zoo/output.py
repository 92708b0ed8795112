"""Writing a large file from its beginning: counted, and with the disk at work behind the writer."""

from __future__ import annotations

from collections.abc import Callable

from trims.linux import atomic, writeback

_BEHIND = 8 << 20  # bytes after which the disk may start: the fsync at the end then has nothing to wait for


class Output:
    """What is written to the empty descriptor `fd`; step is called with the bytes of every write."""

    def __init__(self, fd: int, step: Callable[[int], None]) -> None:
        self._fd, self._step = fd, step
        self._at = self._begun = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data`. Raises OSError."""
        atomic.write_all(self._fd, data)
        nbytes = len(data) if isinstance(data, bytes) else data.nbytes
        self._at += nbytes
        self._step(nbytes)
        if self._at - self._begun >= _BEHIND:
            writeback.begin(self._fd, self._begun, self._at - self._begun)
            self._begun = self._at
