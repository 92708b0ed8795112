"""Reading the index. Each row is whole; together they are of about the same instant, not of exactly one.

What a reader may see late: a row that changed while it was looking is the newer one. What it never sees: half a row,
or a lease on a residency that is not the one it was taken on. All counters, then all bodies, then all counters again
are copied; slots whose counter moved are read again one by one, at most ten times, and left out if they never settle
(their writer died half-way). Whether the manager lives is asked of its lock, which the kernel drops with it.

This module is on the path of the fastest commands: struct, mmap, os and zlib are all it loads.
"""

from __future__ import annotations

import mmap
import os
import zlib

from trims.linux import flock
from trims.shmindex import layout as lay

_TRIES = 10
_PARITY = bytes(i & 1 for i in range(256))


class PlaceUse:
    """One place and its bytes."""

    __slots__ = ("budget", "idle", "leased", "pinned", "place", "reserved", "spare", "used")

    def __init__(
        self, place: str, budget: int, used: int, pinned: int, leased: int, idle: int, spare: int, reserved: int
    ) -> None:
        self.place, self.budget, self.used, self.pinned = place, budget, used, pinned
        self.leased, self.idle, self.spare, self.reserved = leased, idle, spare, reserved


class Residency:
    """One residency. `state` is loading, resident or doomed; `done` of `nbytes` are there; times are epoch seconds."""

    __slots__ = (
        "digest", "done", "expires", "hits", "last_use", "leases", "load_seconds", "nbytes", "pins", "place", "ref",
        "serial", "since", "slot", "state", "variant",
    )  # fmt: skip

    def __init__(self, slot: int, hot: tuple[int, ...], names: tuple[bytes, bytes], places: dict[int, str]) -> None:
        state, place, serial, leases, pins, digest, nbytes, done, hits, load, since, last_use, expires = hot
        self.slot, self.serial = slot, serial
        self.state = lay.STATES[state] if state < len(lay.STATES) else "doomed"
        self.place = places[place]
        self.digest = digest.hex()  # type: ignore[attr-defined]
        self.ref, self.variant = lay.text(names[0]), lay.text(names[1])
        self.leases, self.pins, self.nbytes, self.done, self.hits = leases, pins, nbytes, done, hits
        self.load_seconds, self.since, self.last_use, self.expires = load, since, last_use, expires


class Lease:
    """One client's hold: `residency_slot` is the `slot` of its residency. pid 0: a process the manager cannot see."""

    __slots__ = ("container", "job", "lease", "pid", "residency_slot", "serial", "since", "started", "uid")

    def __init__(
        self, lease: int, slot: int, serial: int, pid: int, uid: int, started: int, since: float, job: bytes,
        container: bytes,
    ) -> None:  # fmt: skip
        self.lease, self.residency_slot, self.serial = lease, slot, serial
        self.pid, self.uid, self.started, self.since = pid, uid, started, since
        self.job, self.container = lay.text(job), lay.text(container)


class Snapshot:
    """What the index said. When not `alive`, its manager is gone and the rest is history."""

    __slots__ = (
        "alive", "counters", "generation", "identity", "leases", "pid", "places", "residencies", "settings", "since",
        "socket", "started", "store", "uid", "version",
    )  # fmt: skip

    alive: bool
    identity: str
    pid: int
    started: int
    uid: int
    store: str
    socket: str
    version: str
    generation: int
    since: float
    places: list[PlaceUse]
    residencies: list[Residency]
    leases: list[Lease]
    counters: dict[str, int]
    settings: dict[str, str]


class _Table:
    """One table's slots: copied whole, torn ones again."""

    __slots__ = ("at", "count", "map", "seq_at", "stride")

    def __init__(self, map: mmap.mmap, seq_at: int, at: int, stride: int, count: int) -> None:
        self.map, self.seq_at, self.at, self.stride, self.count = map, seq_at, at, stride, count

    def counters(self) -> bytes:
        return self.map[self.seq_at : self.seq_at + 8 * self.count]

    def copy(self) -> tuple[bytes, bytes, list[int]]:
        """(counters, bodies, slots that were being written meanwhile)."""
        before = self.counters()
        bodies = self.map[self.at : self.at + self.stride * self.count]
        return before, bodies, changed(before, self.counters())

    def one(self, slot: int, names_at: int = 0) -> tuple[bytes, bytes] | None:
        """One slot's body (and its names), or None when it does not settle."""
        seq, at = self.seq_at + 8 * slot, self.at + self.stride * slot
        names = names_at + lay.NAMES_STRIDE * slot
        for _ in range(_TRIES):
            before = self.map[seq : seq + 8]
            body = self.map[at : at + self.stride]
            extra = self.map[names : names + lay.NAMES.size] if names_at else b""
            if not before[0] & 1 and before == self.map[seq : seq + 8]:
                return body, extra
        return None


def changed(before: bytes, after: bytes) -> list[int]:
    """The slots whose counter is odd or moved between the two copies of the column."""
    if before == after and b"\1" not in before[::8].translate(_PARITY):
        return []
    a, b = memoryview(before).cast("Q"), memoryview(after).cast("Q")
    return [i for i in range(len(a)) if a[i] != b[i] or a[i] & 1]


def intact(body: bytes, size: int, names: bytes = b"") -> bool:
    """Whether the CRC behind the first `size` bytes is that of names and body."""
    return bool(lay.CRC.unpack_from(body, size)[0] == zlib.crc32(body[:size], zlib.crc32(names)))


class Index:
    """An index file kept open, for repeated snapshots. Follows the manager through restarts."""

    __slots__ = ("_file", "_layout", "_map", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._map: mmap.mmap | None = None
        self._file = (0, 0)
        self._layout = lay.Layout(0, 0, 0)

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
            self._map = None

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def snapshot(self) -> Snapshot | None:
        """What the index says now; None when there is none, or none of this version."""
        map = self._current()
        if map is None:
            return None
        result = self._header(map)
        if result is None:
            return None
        high = self._meta(map, result)
        self._residencies(map, result, high[0], self._places(map, result))
        self._leases(map, result, high[1])
        closed = any(map[lay.CLOSED_AT : lay.CLOSED_AT + 8])
        result.alive = not closed and flock.is_owned(self._path.rpartition("/")[0] + "/lock")
        return result

    def _current(self) -> mmap.mmap | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            self.close()
            return None
        if self._map is not None and self._file == (stat.st_dev, stat.st_ino) and stat.st_size == len(self._map):
            return self._map  # a file that was cut would be a SIGBUS
        self.close()
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            stat = os.fstat(fd)
            if stat.st_size >= lay.PAGE:
                self._map = mmap.mmap(fd, stat.st_size, prot=mmap.PROT_READ)
                self._file = (stat.st_dev, stat.st_ino)
        finally:
            os.close(fd)
        return self._map

    def _header(self, map: mmap.mmap) -> Snapshot | None:
        raw = map[: lay.HEADER.size]
        magic, version, places, residencies, leases, pid, uid, started, since, *texts, crc = lay.HEADER.unpack(raw)
        if magic != lay.MAGIC or version != lay.VERSION or crc != zlib.crc32(raw[: -lay.CRC.size]):
            return None
        self._layout = lay.Layout(places, residencies, leases)
        if self._layout.nbytes > len(map):
            return None
        s = Snapshot()
        s.pid, s.uid, s.started, s.since = pid, uid, started, since
        s.identity, s.version, s.socket, s.store = (lay.text(t) for t in texts)
        s.generation, s.counters, s.settings, s.places, s.residencies, s.leases = 0, {}, {}, [], [], []
        return s

    def _meta(self, map: mmap.mmap, s: Snapshot) -> tuple[int, int]:
        read = _Table(map, self._layout.seq_at, self._layout.meta_at, lay.META_STRIDE, 1).one(0)
        if read is None or not intact(read[0], lay.META.size):
            return self._layout.residencies, self._layout.leases  # its writer died in this slot: look at all others
        s.generation, residencies, leases, count, *rest = lay.META.unpack_from(read[0])
        names = lay.text(rest[lay.COUNTERS]).split("\n")
        s.counters = dict(zip(names[:count], rest[:count], strict=False))
        s.settings = {name: value for name, equals, value in (line.partition("=") for line in names[count:]) if equals}
        return min(residencies, self._layout.residencies), min(leases, self._layout.leases)

    def _places(self, map: mmap.mmap, s: Snapshot) -> dict[int, str]:
        lo = self._layout
        table = _Table(map, lo.seq_at + 8 * lo.place_seq, lo.place_at, lay.PLACE_STRIDE, lo.places)
        slots: dict[int, str] = {}
        for slot in range(lo.places):
            read = table.one(slot)
            if read is None or not read[0][0]:
                break
            if intact(read[0], lay.PLACE.size):
                name, *numbers = lay.PLACE.unpack_from(read[0])
                slots[slot] = lay.text(name)
                s.places.append(PlaceUse(slots[slot], *numbers))
        return slots

    def _residencies(self, map: mmap.mmap, s: Snapshot, count: int, places: dict[int, str]) -> None:
        lo, stride, size = self._layout, lay.HOT_STRIDE, lay.HOT.size
        table = _Table(map, lo.seq_at + 8 * lo.residency_seq, lo.hot_at, stride, count)
        before, bodies, _ = table.copy()
        rows: dict[int, tuple[bytes, bytes]] = {}
        for slot, state in enumerate(bodies[::stride]):
            if state:
                at = lo.names_at + lay.NAMES_STRIDE * slot
                rows[slot] = bodies[slot * stride : (slot + 1) * stride], map[at : at + lay.NAMES.size]
        for slot in changed(before, table.counters()):
            again = table.one(slot, lo.names_at)
            if again is None or not again[0][0]:
                rows.pop(slot, None)
            else:
                rows[slot] = again
        for slot in sorted(rows):
            body, names = rows[slot]
            hot = lay.HOT.unpack_from(body)
            if intact(body, size, names) and hot[1] in places:
                s.residencies.append(Residency(slot, hot, lay.NAMES.unpack(names), places))

    def _leases(self, map: mmap.mmap, s: Snapshot, count: int) -> None:
        lo, stride = self._layout, lay.LEASE_STRIDE
        table = _Table(map, lo.seq_at + 8 * lo.lease_seq, lo.lease_at, stride, count)
        _, bodies, torn = table.copy()
        serials = {r.slot: r.serial for r in s.residencies}
        rows = {slot: bodies[slot * stride : (slot + 1) * stride] for slot in range(count)}
        for slot in torn:
            again = table.one(slot)
            rows[slot] = again[0] if again is not None else bytes(stride)
        for body in rows.values():
            if any(body[:8]) and intact(body, lay.LEASE.size):
                lease = Lease(*lay.LEASE.unpack_from(body))
                if serials.get(lease.residency_slot) == lease.serial:
                    s.leases.append(lease)


def read(index_path: str) -> Snapshot | None:
    """One snapshot of the index at `index_path`; None when there is none, or none of this version."""
    with Index(index_path) as index:
        return index.snapshot()
