"""Streams of copies to and from simulated GPUs, and the page-locked host memory that they use, of one process.

A copy from or to page-locked memory is made when somebody waits for its stream and no sooner; from other memory at
once, after those before it. So who forgets to wait, or uses a buffer again too early, sees it here.
"""

from __future__ import annotations

import itertools
import mmap
import threading
from dataclasses import dataclass, field
from typing import NamedTuple

from trims.devices import simulated_addresses as addresses
from trims.devices.simulated_addresses import refused


class Copy(NamedTuple):
    """host: the host's address of the two, or None."""

    to: int
    source: int
    nbytes: int
    host: int | None = None


@dataclass(slots=True)
class _Stream:
    """Copies not yet made; the lock is held while they are."""

    ordinal: int
    copies: list[Copy] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        with self.lock:
            while self.copies:
                addresses.copy(*self.copies.pop(0)[:3])


class _Locked(NamedTuple):
    """Page-locked memory; made: whether `pin` made it."""

    ordinal: int
    nbytes: int
    made: bool


class Copies:
    """All streams and all page-locked memory. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._streams: dict[int, _Stream] = {}
        self._locked: dict[int, _Locked] = {}

    def stream(self, ordinal: int) -> int:
        with self._lock:
            number = next(self._numbers)
            self._streams[number] = _Stream(ordinal)
        return number

    def end_stream(self, ordinal: int, stream: int) -> None:
        self._find("end_stream", ordinal, stream).run()
        with self._lock:
            del self._streams[stream]

    def wait(self, ordinal: int, stream: int) -> None:
        self._find("wait", ordinal, stream).run()

    def run(self, ordinal: int | None = None) -> None:
        """Make all copies of a GPU, or of every GPU."""
        with self._lock:
            streams = [s for s in self._streams.values() if ordinal in (None, s.ordinal)]
        for stream in streams:
            stream.run()

    def add(self, call: str, ordinal: int, stream: int, copy: Copy) -> None:
        chosen = self._find(call, ordinal, stream)
        with chosen.lock:
            chosen.copies.append(copy)
        if copy.host is not None and not self._is_locked(copy.host, copy.nbytes):
            chosen.run()

    def pin(self, ordinal: int, nbytes: int) -> int:
        if nbytes <= 0:
            raise refused("pin", f"{nbytes} bytes are none")
        size = -(-nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
        address = addresses.anonymous(size, mmap.PROT_READ | mmap.PROT_WRITE)
        with self._lock:
            self._locked[address] = _Locked(ordinal, size, True)
        return address

    def unpin(self, ordinal: int, address: int) -> None:
        addresses.unmap(address, self._forget("unpin", ordinal, address, made=True))

    def register(self, ordinal: int, address: int, nbytes: int, reads: bool) -> None:
        """reads: whether memory will do that may only be read."""
        if nbytes <= 0 or not addresses.is_mapped(address, nbytes, write=not reads):
            raise refused("register", "the memory is not mapped, or read-only and the GPU cannot use such memory")
        with self._lock:
            if any(at < address + nbytes and address < at + m.nbytes for at, m in self._locked.items()):
                raise refused("register", "a part of the memory is page-locked already")
            self._locked[address] = _Locked(ordinal, nbytes, False)

    def unregister(self, ordinal: int, address: int) -> None:
        self._forget("unregister", ordinal, address, made=False)

    def _forget(self, call: str, ordinal: int, address: int, made: bool) -> int:
        """Take page-locked memory off the books, once nothing is on its way from it; returns its bytes."""
        self.run(ordinal)
        with self._lock:
            found = self._locked.get(address)
            if found is None or (found.ordinal, found.made) != (ordinal, made):
                raise refused(call, "there is no such memory")
            del self._locked[address]
        return found.nbytes

    def _is_locked(self, address: int, nbytes: int) -> bool:
        with self._lock:
            return any(at <= address and address + nbytes <= at + m.nbytes for at, m in self._locked.items())

    def _find(self, call: str, ordinal: int, stream: int) -> _Stream:
        found = self._streams.get(stream)
        if found is None or found.ordinal != ordinal:
            raise refused(call, "there is no such stream")
        return found
