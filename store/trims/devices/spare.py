"""Ready pages for the next load. Fresh pages are what loading waits for: 2 GB/s against 12 into ready ones (measured).

One thread keeps one memfd of the wanted size and gives it its pages in small steps; a load takes it, cuts or extends it
to its own size, and the thread starts over when no load is on its way: it would take the processor that the load needs.
Only memory that was never handed out is ever here. Not promised: that anything is ready when a load comes.
"""

from __future__ import annotations

import mmap
import os
import threading

from trims.errors import TrimsError
from trims.linux import memfd

STEP = 4 << 20
"""Bytes populated at a time: a load that wants the pages waits for one step at most, a few milliseconds."""
WORTH = 4
"""A load smaller than this fraction of the ready pages gets fresh ones: giving the rest back would cost more."""


class Ready:
    """A writable memfd and its map; the first `populated` bytes have their pages."""

    __slots__ = ("fd", "map", "populated")

    def __init__(self, fd: int, map: mmap.mmap, populated: int = 0) -> None:
        self.fd, self.map, self.populated = fd, map, populated

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def fresh(name: str, nbytes: int, huge: bool) -> Ready:
    """A new writable memfd of whole pages, mapped, without its pages yet. Raises NoRoom."""
    fd = memfd.create(name, nbytes)
    try:
        map = mmap.mmap(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    if huge:
        map.madvise(mmap.MADV_HUGEPAGE)  # before the pages come: collapsing afterwards costs seconds a GiB
    return Ready(fd, map)


class SparePool:
    """Keeps about `set(n)` bytes ready, from its own thread."""

    def __init__(self, huge: bool) -> None:
        self._huge = huge
        self._changed = threading.Condition()
        self._target = 0
        self._ready: Ready | None = None
        self._stepping = self._closed = False
        self._loads = 0
        self._thread: threading.Thread | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of ready pages now."""
        ready = self._ready
        return ready.populated if ready is not None else 0

    def set(self, nbytes: int) -> int:
        """Keep this many from now on; more than that is given back before this returns. Returns what is ready now."""
        with self._changed:
            self._target = memfd.pages(nbytes) if nbytes else 0
            self._changed.wait_for(lambda: not self._stepping)
            if self._ready is not None and self._ready.populated > self._target:
                self._ready.close()
                self._ready = None
            if self._thread is None and self._target:
                self._thread = threading.Thread(target=self._work, name="trims-spare", daemon=True)
                self._thread.start()
            self._changed.notify_all()
            return self.nbytes

    def take(self, nbytes: int) -> Ready | None:
        """The ready pages, for a load of `nbytes`; None when there are none, or far too many to be cut down."""
        with self._changed:
            if self.nbytes == 0 or nbytes < self.nbytes // WORTH:
                return None
            self._changed.wait_for(lambda: not self._stepping)
            taken, self._ready = self._ready, None
            self._changed.notify_all()
            return taken

    def busy(self, loads: int) -> None:
        """So many loads more (or, negative, fewer) are on their way."""
        with self._changed:
            self._loads += loads
            self._changed.notify_all()

    def wait(self, nbytes: int, timeout: float) -> bool:
        """Wait until `nbytes` are ready; False when that took longer."""
        with self._changed:
            return self._changed.wait_for(lambda: self.nbytes >= nbytes, timeout)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def _work(self) -> None:
        while self._wait_for_work():
            try:
                self._step()
            except (TrimsError, OSError):
                with self._changed:  # no memory: what is there will do, until `set` is called again
                    self._target = self.nbytes
                    self._stepping = False
                    self._changed.notify_all()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or (self.nbytes < self._target and not self._loads))
            self._stepping = not self._closed
            return not self._closed

    def _step(self) -> None:
        """Populate one step. While `_stepping`, the pages belong to this thread."""
        ready = self._ready
        if ready is not None and len(ready.map) < self._target:
            ready.map.resize(self._target)
        if ready is None:
            ready = self._ready = fresh("trims", self._target, self._huge)
        step = min(STEP, self._target - ready.populated)
        memfd.populate(ready.map, ready.populated, step)
        with self._changed:
            ready.populated += step
            self._stepping = False
            self._changed.notify_all()
