"""Who holds what since when. A lease belongs to one connection and one residency, and ends with either word or socket.

Kept both ways, by connection and by key, so that ending a connection costs its own leases and naming the holders of a
residency costs its holders, however many leases there are in all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trims.residency.events import Key, Who


class LeaseView(NamedTuple):
    """One client's hold on one residency. `lease` is its number, never used twice; `since` a time of the clock.

    (A tuple: one is made for every attach.)
    """

    lease: int
    conn: int
    key: Key
    who: Who
    since: float


class Leases:
    """All leases of a manager."""

    __slots__ = ("_by_conn", "_by_key", "_last")

    def __init__(self) -> None:
        self._by_conn: dict[int, dict[int, LeaseView]] = {}
        self._by_key: dict[Key, dict[int, LeaseView]] = {}
        self._last = 0

    def grant(self, conn: int, key: Key, who: Who, now: float) -> LeaseView:
        self._last += 1
        lease = LeaseView(self._last, conn, key, who, now)
        self._by_conn.setdefault(conn, {})[lease.lease] = lease
        self._by_key.setdefault(key, {})[lease.lease] = lease
        return lease

    def release(self, conn: int, lease: int) -> LeaseView | None:
        """End one lease of `conn`; None when it has no such lease (another connection's is not its to give back)."""
        mine = self._by_conn.get(conn, {})
        ended = mine.pop(lease, None)
        if ended is None:
            return None
        if not mine:
            del self._by_conn[conn]
        self._drop(ended)
        return ended

    def close(self, conn: int) -> list[LeaseView]:
        """End all leases of `conn`, oldest first."""
        ended = list(self._by_conn.pop(conn, {}).values())
        for lease in ended:
            self._drop(lease)
        return ended

    def _drop(self, lease: LeaseView) -> None:
        holders = self._by_key[lease.key]
        del holders[lease.lease]
        if not holders:
            del self._by_key[lease.key]

    def of(self, key: Key) -> Iterable[LeaseView]:
        return self._by_key.get(key, {}).values()

    def count(self, key: Key) -> int:
        return len(self._by_key.get(key, ()))

    def __iter__(self) -> Iterator[LeaseView]:
        for mine in self._by_conn.values():
            yield from mine.values()

    def __bool__(self) -> bool:
        return bool(self._by_key)

    def check(self) -> None:
        """Raise AssertionError unless both tables hold the same leases."""
        there = sorted(lease.lease for held in self._by_key.values() for lease in held.values())
        assert sorted(lease.lease for lease in self) == there, "the two tables of leases differ"
        for key, held in self._by_key.items():
            assert held and all(lease.key == key for lease in held.values()), f"a wrong or empty row for {key}"
