"""Regions that a dead manager left mapped in living clients: they use memory that this one must not give out again.

Who they are is read from the dead one's index and from the journal of earlier ones. A holder is a pid with its start
time, that still maps memory of ours where the kernel lets us look; it is watched by a pidfd, and when the last holder
of a region ends, its bytes are free. A holder that only unmaps is believed to hold on until it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from trims.linux import process
from trims.manager.journal import Orphan
from trims.shmindex.reader import Snapshot

_MARK = "/memfd:trims"


def find(dead: Snapshot | None, earlier: Iterable[Orphan]) -> list[Orphan]:
    """The regions that are still held, with the holders that still live."""
    found = list(earlier)
    if dead is not None:
        rows = {r.slot: r for r in dead.residencies}
        held: dict[int, list[tuple[int, int]]] = {}
        for lease in dead.leases:
            held.setdefault(lease.residency_slot, []).append((lease.pid, lease.started))
        for slot, holders in held.items():
            row = rows[slot]
            name = f"{dead.identity}/{row.serial}"
            found.append(Orphan(name, row.place, row.nbytes, sorted(set(holders)), row.ref))
    living = [Orphan(o.name, o.place, o.nbytes, [h for h in o.holders if holds(*h)], o.ref) for o in found]
    return [orphan for orphan in living if orphan.holders]


def holds(pid: int, started: int) -> bool:
    """Whether that very process lives and, as far as can be seen, maps memory of a manager."""
    if not process.is_alive(pid, started):
        return False
    try:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            return any(_MARK in line for line in file)
    except OSError:
        return True


class Watch:
    """Watches the holders of orphans; `gone` is called with each orphan whose last holder has ended."""

    def __init__(
        self,
        orphans: list[Orphan],
        watch: Callable[[int, Callable[[int], None]], None],
        unwatch: Callable[[int], None],
        gone: Callable[[Orphan], None],
    ) -> None:
        self.orphans = {orphan.name: orphan for orphan in orphans}
        self._unwatch, self._gone = unwatch, gone
        self._left = {orphan.name: set(orphan.holders) for orphan in orphans}
        self._fds: dict[tuple[int, int], int] = {}
        for holder in {h for orphan in orphans for h in orphan.holders}:
            self._add(holder, watch)

    def close(self) -> None:
        for fd in self._fds.values():
            self._unwatch(fd)
            os.close(fd)
        self._fds.clear()

    def _add(self, holder: tuple[int, int], watch: Callable[[int, Callable[[int], None]], None]) -> None:
        try:
            self._fds[holder] = fd = process.watch(holder[0])
        except OSError:
            self._ended(holder)
            return
        if not process.is_alive(*holder):  # another process has its number by now
            self._ended(holder)
            return
        watch(fd, lambda _: self._ended(holder))

    def _ended(self, holder: tuple[int, int]) -> None:
        fd = self._fds.pop(holder, -1)
        if fd >= 0:
            self._unwatch(fd)
            os.close(fd)
        for name, left in list(self._left.items()):
            left.discard(holder)
            if not left:
                del self._left[name]
                self._gone(self.orphans.pop(name))
