"""What the machine knows, into the index: rows that changed since the last turn, once each, before anybody is answered.

Sums and counters, which every attach changes, are written with the next answer that is no lease, and otherwise at most
every SUMS seconds. The machine's clock is monotonic, the index speaks of time of day; a row is converted when written.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from trims.residency.events import Key, Who
from trims.residency.machine import Machine
from trims.shmindex.writer import IndexWriter

SUMS = 0.02


class Publisher:
    """Keeps `index` like `machine`. progress: bytes in place of a key that is being loaded."""

    def __init__(self, machine: Machine, index: IndexWriter, places: list[str], progress: Callable[[Key], int]) -> None:
        self._machine, self._index, self._places, self._progress = machine, index, places, progress
        self._dirty: dict[Key, None] = {}
        self._changed = self._urgent = True
        self._closed = False
        self._summed = 0.0

    def changed(self, key: Key) -> None:
        """The row of this key, and what depends on it, is to be written."""
        self._dirty[key] = None

    def touch(self) -> None:
        """Something that has no row of its own changed: sums, counters."""
        self._changed = True

    def urge(self) -> None:
        """Somebody is being told of a change: let the sums and counters agree."""
        self._urgent = True

    def leased(self, lease: int, key: Key, who: Who) -> None:
        """A lease was granted. Its residency's row is written first: the lease's row points at it."""
        if self._dirty.pop(key, 0) is None:
            self._put(key, time.time() - time.monotonic())
        self._index.put_lease(
            lease, key, pid=who.pid, uid=who.uid, started=who.started, since=time.time(), job=who.job,
            container=who.container,
        )  # fmt: skip

    def released(self, lease: int) -> None:
        """A lease has ended."""
        if not self._closed:
            self._index.drop_lease(lease)

    def close(self) -> None:
        """The index stays as it is now: what its leases say is how the next life finds who still holds what."""
        self._closed = True
        self._index.close()

    def flush(
        self, counters: Callable[[], dict[str, int]], settings: Callable[[], dict[str, str]], now: float
    ) -> float | None:
        """Bring the index up to date. When to be called again, if the sums are left for later."""
        if self._closed:
            return None
        if self._dirty:
            offset = time.time() - time.monotonic()
            for key in self._dirty:
                self._put(key, offset)
            self._dirty.clear()
        if not (self._changed or self._index.grown):
            return None
        due = self._summed + SUMS
        if not (self._urgent or self._index.grown) and now < due:
            return due
        self._changed = self._urgent = False
        self._summed = now
        for place in self._places:
            use = self._machine.use(place)
            self._index.put_place(
                place, use.budget, use.used, use.pinned, use.leased, use.idle, use.spare, use.reserved
            )
        self._index.put_meta(counters(), settings())
        return None

    def _put(self, key: Key, offset: float) -> None:
        view = self._machine.residency(key)
        if view is None:
            self._index.drop_residency(key)
            return
        self._index.put_residency(
            key,
            digest=key.digest,
            variant=key.variant,
            place=key.place,
            ref=view.ref,
            state=view.state,
            nbytes=view.nbytes,
            done=self._progress(key) if view.state == "loading" else view.nbytes,
            leases=view.leases,
            pins=view.pins,
            hits=view.hits,
            load_seconds=view.load_seconds,
            since=view.since + offset,
            last_use=view.last_use + offset,
            expires=view.expires + offset,
        )
