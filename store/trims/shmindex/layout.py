"""The index file: who is resident and who holds it, for any process of the user to read without asking anyone.

    page 0      header: magic, version, who wrote it, how many slots of each table; written once, before the file gets
                its name; only `closed` changes, once
    page 1..    the sequence column: one 64-bit counter a slot, of all tables in the order below
    then        meta (one slot), places, residencies (hot), residencies (names), leases: fixed-size bodies

One writer, any number of readers, no lock. The writer makes a slot's counter odd, writes the body, makes it even; a
reader that copied the body between two equal, even reads of the counter has a whole body. A residency has two bodies
under one counter: the small hot one that readers copy wholesale, and its names, which they read for live slots only.
Each body ends in its CRC-32, for machines whose stores may be seen out of order. A lease names its residency by slot
and serial, so that a slot that was reused in between is noticed. Everything is little-endian.
"""

from __future__ import annotations

from struct import Struct

MAGIC = b"TRMSIDX\n"
VERSION = 2

HEADER = Struct("<8sIIIIIIQd32s32s128s1024sI")
"""magic, version, places, residencies, leases (slots of each), pid, uid, started (ticks since boot), since (epoch),
identity, trims version, socket, store, CRC-32 of what comes before."""
CLOSED_AT = 4088
"""Offset of a 64-bit word that its writer, or its successor, makes 1: what the file says is over."""
PAGE = 4096

META = Struct("<QIII4x48Q2048s")
"""generation, residency slots and lease slots ever used, number of counters, their values; lines: their names, then
settings of the manager as `name=value`."""
COUNTERS = 48
PLACE = Struct("<72s7Q")
"""place, budget, used, pinned, leased, idle, spare, reserved."""
HOT = Struct("<BB2xIII32sQQQdddd")
"""state, place (slot), serial, leases, pins, digest, nbytes, done, hits, load seconds, since, last use, expires."""
NAMES = Struct("<216s104s")
"""ref, variant."""
LEASE = Struct("<QIIIIQd44s64s")
"""lease (0: no lease), residency slot, its serial, pid, uid, started, since, job, container."""
CRC = Struct("<I")

STATES = ("free", "loading", "resident", "doomed")
PLACES = 32
RESIDENCIES = 8192
LEASES = 16384


def _padded(nbytes: int, to: int) -> int:
    return -(-nbytes // to) * to


META_STRIDE = _padded(META.size + CRC.size, 64)
PLACE_STRIDE = _padded(PLACE.size + CRC.size, 64)
HOT_STRIDE = _padded(HOT.size + CRC.size, 64)
NAMES_STRIDE = _padded(NAMES.size, 64)
LEASE_STRIDE = _padded(LEASE.size + CRC.size, 32)


class Layout:
    """Where everything lies for given numbers of slots: `*_seq` are indexes into the counters, `*_at` offsets."""

    __slots__ = (
        "hot_at",
        "lease_at",
        "lease_seq",
        "leases",
        "meta_at",
        "names_at",
        "nbytes",
        "place_at",
        "place_seq",
        "places",
        "residencies",
        "residency_seq",
        "seq_at",
        "seq_count",
    )

    def __init__(self, places: int, residencies: int, leases: int) -> None:
        self.places, self.residencies, self.leases = places, residencies, leases
        self.place_seq = 1
        self.residency_seq = self.place_seq + places
        self.lease_seq = self.residency_seq + residencies
        self.seq_count = self.lease_seq + leases
        self.seq_at = PAGE
        self.meta_at = _padded(self.seq_at + 8 * self.seq_count, PAGE)
        self.place_at = self.meta_at + META_STRIDE
        self.hot_at = _padded(self.place_at + places * PLACE_STRIDE, PAGE)
        self.names_at = self.hot_at + residencies * HOT_STRIDE
        self.lease_at = self.names_at + residencies * NAMES_STRIDE
        self.nbytes = _padded(self.lease_at + leases * LEASE_STRIDE, PAGE)


def text(field: bytes) -> str:
    """The text of a NUL-padded field."""
    return field.rstrip(b"\0").decode("utf-8", "surrogateescape")


def field(value: str, nbytes: int) -> bytes:
    """`value` as a field of `nbytes`, cut at a whole character when it is too long."""
    raw = value.encode("utf-8", "surrogateescape")
    if len(raw) > nbytes:
        raw = raw[:nbytes].decode("utf-8", "ignore").encode()
    return raw
