"""Host regions in a GPU's worker: mapped, and registered behind the scenes so that the GPU copies from them directly.

Registering takes longer than one copy through the buffers, so the first load of a region does without, and later ones
find it done. A region is known by the inode of its memfd; one that is to be closed is dropped first.
"""

from __future__ import annotations

import mmap
import threading

import numpy as np

from trims.devices.driver import Driver


class Registry:
    """Those of one process for one GPU. registers: whether that GPU can register memory that is mapped read-only."""

    CHUNK = 1 << 30
    """Bytes of one registration at most: one call for 512 GiB fails on some drivers, and a long one stalls others."""

    def __init__(self, driver: Driver, ordinal: int, registers: bool) -> None:
        self._driver, self._ordinal, self._registers = driver, ordinal, registers
        self._entries: dict[int, _Mapped] = {}

    def mapped(self, fd: int, inode: int, nbytes: int) -> _Mapped:
        """The region behind `fd`, which stays the caller's, mapped. Raises OSError."""
        known = self._entries.get(inode)
        if known is None:
            known = self._entries[inode] = _Mapped(fd, nbytes)
        return known

    def register(self, inode: int) -> None:
        """Register it in the background, if this GPU can, unless that has begun."""
        entry = self._entries.get(inode)
        if entry is not None and self._registers and entry.thread is None:
            entry.thread = threading.Thread(target=self._work, args=(entry,), name="trims-register")
            entry.thread.start()

    def drop(self, inode: int) -> None:
        """Unregister and unmap it."""
        entry = self._entries.pop(inode, None)
        if entry is None:
            return
        entry.unwanted = True
        if entry.thread is not None:
            entry.thread.join()
        for address in entry.chunks:
            self._driver.unregister(self._ordinal, address)
        entry.map.close()

    def close(self) -> None:
        for inode in list(self._entries):
            self.drop(inode)

    def _work(self, entry: _Mapped) -> None:
        try:
            for start in range(0, entry.nbytes, self.CHUNK):
                if entry.unwanted:
                    return
                size = min(self.CHUNK, entry.nbytes - start)
                self._driver.register(self._ordinal, entry.address + start, size)
                entry.chunks.append(entry.address + start)
        except Exception:
            return  # a limit on locked memory, say: the buffers do as well
        entry.registered = True


class _Mapped:
    """One host region in this process. address: of its first byte."""

    __slots__ = ("address", "chunks", "map", "nbytes", "registered", "thread", "unwanted")

    def __init__(self, fd: int, nbytes: int) -> None:
        self.map = mmap.mmap(fd, nbytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self.address = int(np.frombuffer(self.map, np.uint8).ctypes.data)  # ctypes refuses read-only memory
        self.nbytes = nbytes
        self.chunks: list[int] = []
        self.registered = self.unwanted = False
        self.thread: threading.Thread | None = None
