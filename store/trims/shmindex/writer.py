"""Writing the index: one writer, the manager. A row is put in a microsecond; nobody is waited for.

A new life writes a new file and renames it over the old one, so a reader has either file whole. Slots are reused
lowest first, which keeps the part that readers copy short. A table that is full drops the row and counts it: the index
tells what is resident, it does not decide it.
"""

from __future__ import annotations

import contextlib
import heapq
import mmap
import os
import struct
import zlib
from collections.abc import Hashable, Mapping

from trims.errors import NoSpace
from trims.linux import atomic
from trims.shmindex import layout as lay

_STATE = {name: code for code, name in enumerate(lay.STATES)}
_ZEROS = bytes(lay.HOT_STRIDE)


class _Slots:
    """Which slot of one table belongs to whom."""

    __slots__ = ("_free", "capacity", "high", "of")

    def __init__(self, capacity: int) -> None:
        self.capacity, self.high = capacity, 0
        self.of: dict[Hashable, int] = {}
        self._free: list[int] = []

    def take(self, owner: Hashable) -> int | None:
        if self._free:
            slot = heapq.heappop(self._free)
        elif self.high < self.capacity:
            slot = self.high
            self.high += 1
        else:
            return None
        self.of[owner] = slot
        return slot

    def give(self, owner: Hashable) -> int | None:
        slot = self.of.pop(owner, None)
        if slot is not None:
            heapq.heappush(self._free, slot)
        return slot


class IndexWriter:
    """The index at `path`, from its first moment. All rows are gone until they are put."""

    def __init__(
        self,
        path: str,
        places: list[str],
        *,
        identity: str,
        pid: int,
        started: int,
        uid: int,
        since: float,
        store: str,
        socket: str,
        version: str,
        residencies: int = lay.RESIDENCIES,
        leases: int = lay.LEASES,
    ) -> None:
        self.path = path
        self._layout = lay.Layout(max(len(places), lay.PLACES), residencies, leases)
        head = lay.HEADER.pack(
            lay.MAGIC, lay.VERSION, self._layout.places, residencies, leases, pid, uid, started, since,
            *(lay.field(text, size) for text, size in ((identity, 32), (version, 32), (socket, 128), (store, 1024))), 0,
        )  # fmt: skip
        self._head = head[: -lay.CRC.size] + lay.CRC.pack(zlib.crc32(head[: -lay.CRC.size]))
        self._fd, self._map = _create(path, self._layout.nbytes, self._head)
        at = self._layout.seq_at
        self._view = memoryview(self._map)
        self._seq = self._view[at : at + 8 * self._layout.seq_count].cast("Q")
        self._places = {place: slot for slot, place in enumerate(places)}
        self._residencies, self._leases = _Slots(residencies), _Slots(leases)
        self._serial, self._generation, self.dropped = 0, 0, 0
        self._told = (0, 0)
        self._names: dict[
            int, tuple[int, bytes, int, str, str]
        ] = {}  # slot: serial, digest, CRC of names, ref, variant
        for place in places:
            self.put_place(place)
        self.put_meta({})

    def put_place(
        self,
        place: str,
        budget: int = 0,
        used: int = 0,
        pinned: int = 0,
        leased: int = 0,
        idle: int = 0,
        spare: int = 0,
        reserved: int = 0,
    ) -> None:
        slot = self._places[place]
        body = lay.PLACE.pack(lay.field(place, 72), budget, used, pinned, leased, idle, spare, reserved)
        self._put(
            self._layout.place_seq + slot, self._layout.place_at + slot * lay.PLACE_STRIDE, body, zlib.crc32(body)
        )

    @property
    def grown(self) -> bool:
        """Whether rows were put beyond what the last `put_meta` told readers to look at."""
        return self._told != (self._residencies.high, self._leases.high)

    def put_meta(self, counters: Mapping[str, int], settings: Mapping[str, str] | None = None) -> None:
        """Name this state of the index, its counters and what the manager runs with, as the next generation."""
        self._generation += 1
        shown = dict(list(counters.items())[: lay.COUNTERS])
        values = [*shown.values(), *[0] * (lay.COUNTERS - len(shown))]
        lines = [*shown, *(f"{name}={' '.join(value.split())}" for name, value in (settings or {}).items())]
        names = lay.field("\n".join(lines), 2048)
        high = self._told = self._residencies.high, self._leases.high
        body = lay.META.pack(self._generation, *high, len(shown), *values, names)
        self._put(0, self._layout.meta_at, body, zlib.crc32(body))

    def put_residency(
        self, key: Hashable, *, digest: str, variant: str, place: str, ref: str, state: str, nbytes: int, done: int,
        leases: int, pins: int, hits: int, load_seconds: float, since: float, last_use: float, expires: float,
    ) -> None:  # fmt: skip
        """Put the row of `key`; its slot, serial and names stay while it is there."""
        self._mend()
        slot = self._residencies.of.get(key)
        if slot is None:
            slot = self._residencies.take(key)
            if slot is None:
                self.dropped += 1
                return
            self._serial += 1
            self._names[slot] = self._serial, bytes.fromhex(digest), 0, "", ""
        serial, raw, crc, old_ref, old_variant = self._names[slot]
        names = b""
        if not crc or ref != old_ref or variant != old_variant:
            names = lay.NAMES.pack(lay.field(ref, 216), lay.field(variant, 104))
            crc = zlib.crc32(names)
            self._names[slot] = serial, raw, crc, ref, variant
        body = lay.HOT.pack(
            _STATE[state], self._places[place], serial, leases, pins, raw,
            nbytes, done, hits, load_seconds, since, last_use, expires,
        )  # fmt: skip
        seq = self._layout.residency_seq + slot
        self._seq[seq] += 1  # all that can fail lies before this line: a counter must not stay odd
        if names:
            at = self._layout.names_at + slot * lay.NAMES_STRIDE
            self._view[at : at + len(names)] = names
        at = self._layout.hot_at + slot * lay.HOT_STRIDE
        self._view[at : at + lay.HOT.size + 4] = body + lay.CRC.pack(zlib.crc32(body, crc))
        self._seq[seq] += 1

    def drop_residency(self, key: Hashable) -> None:
        """The row of `key` is gone. Does nothing when it has none."""
        slot = self._residencies.give(key)
        if slot is not None:
            at = self._layout.hot_at + slot * lay.HOT_STRIDE
            self._put(self._layout.residency_seq + slot, at, _ZEROS[: lay.HOT.size], 0)

    def put_lease(
        self,
        lease: int,
        key: Hashable,
        *,
        pid: int,
        uid: int,
        started: int,
        since: float,
        job: str,
        container: str = "",
    ) -> None:
        """A client holds the residency of `key`, which has its row already."""
        residency = self._residencies.of.get(key)
        slot = None if residency is None else self._leases.take(lease)
        if residency is None or slot is None:
            self.dropped += 1
            return
        serial = self._names[residency][0]
        body = lay.LEASE.pack(
            lease, residency, serial, pid, uid, started, since, lay.field(job, 44), lay.field(container, 64)
        )
        at = self._layout.lease_at + slot * lay.LEASE_STRIDE
        self._put(self._layout.lease_seq + slot, at, body, zlib.crc32(body))

    def drop_lease(self, lease: int) -> None:
        """The lease is gone. Does nothing when it has no row."""
        slot = self._leases.give(lease)
        if slot is not None:
            at = self._layout.lease_at + slot * lay.LEASE_STRIDE
            self._put(self._layout.lease_seq + slot, at, _ZEROS[: lay.LEASE.size], 0)

    def close(self) -> None:
        """Say that this is over, and let go of the file, which stays."""
        with contextlib.suppress(OSError):  # a file that was cut, on a disk that is full
            os.pwrite(self._fd, struct.pack("<Q", 1), lay.CLOSED_AT)
        self._seq.release()
        self._view.release()
        self._map.close()
        os.close(self._fd)

    def _put(self, seq: int, at: int, body: bytes, crc: int) -> None:
        self._mend()
        self._seq[seq] += 1
        self._view[at : at + len(body) + 4] = body + lay.CRC.pack(crc)
        self._seq[seq] += 1

    def _mend(self) -> None:
        """When somebody has cut the file, make it whole: beyond its end is a SIGBUS. Rows come back as they change."""
        if os.fstat(self._fd).st_size >= self._layout.nbytes:
            return
        os.posix_fallocate(self._fd, 0, self._layout.nbytes)
        self._map[: len(self._head)] = self._head
        self._names = {slot: (serial, raw, 0, "", "") for slot, (serial, raw, *_) in self._names.items()}


def _create(path: str, nbytes: int, head: bytes) -> tuple[int, mmap.mmap]:
    """The new file, open and mapped, under its name. Its blocks are reserved: a full disk is no SIGBUS later."""
    with atomic.staged(os.path.dirname(path)) as staged:
        fd = os.open(staged, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, nbytes)
            map = mmap.mmap(fd, nbytes)
            map[: len(head)] = head
            os.rename(staged, path)
        except OSError as error:
            os.close(fd)
            raise NoSpace(
                "the index cannot be written", os.strerror(error.errno or 0), f"free space at {path}"
            ) from None
    return fd, map


def mark_closed(path: str) -> None:
    """Say of a dead manager's index that it is over, before its successor takes the lock's place in readers' eyes."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        if os.fstat(fd).st_size >= lay.PAGE:
            os.pwrite(fd, struct.pack("<Q", 1), lay.CLOSED_AT)
    finally:
        os.close(fd)
