"""What earlier lives left: pins and warm models to have again, memory that clients still hold, counters to go on from.

Reading it marks the dead manager's index as over. Wishes are looked up in threads, so a start does not wait for them;
one that is not looked up yet is still to be kept, and so is one whose store cannot be read today.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from trims.errors import NoSuchModel, NoSuchVariant
from trims.linux import process
from trims.manager import journal, orphans
from trims.manager.executor import Executor
from trims.manager.journal import Kept, Orphan
from trims.manager.loader import Form
from trims.manager.names import Named
from trims.manager.resolve import Resolver
from trims.manager.server import Server
from trims.manager.workers import Pool
from trims.paths import RuntimePaths
from trims.residency import events as ev
from trims.shmindex import reader
from trims.shmindex.writer import mark_closed

OURSELVES = 0
"""The connection number of the manager's own wishes."""


class Inheritance:
    """One life's view of those before it. counters: what theirs came to."""

    def __init__(
        self,
        paths: RuntimePaths,
        executor: Executor,
        resolver: Resolver,
        lookups: Pool,
        log: Callable[[str, str], None],
    ) -> None:
        self._executor, self._resolver, self._lookups, self._log = executor, resolver, lookups, log
        earlier = journal.read(paths.journal)
        self.counters, self._wishes = earlier.counters, earlier.kept
        self._untaken = dict.fromkeys(earlier.kept)  # not yet looked up: still to be kept
        self._dead = reader.read(paths.index)
        mark_closed(paths.index)
        devices = executor.devices
        found = orphans.find(self._dead, earlier.orphans)
        self._left = [o for o in found if o.place not in devices or devices[o.place].outlived]
        self._watch: orphans.Watch | None = None

    def take_over(self, server: Server) -> dict[str, object]:
        """Reserve what is still held, and ask for what was pinned or warm. Returns what `status` says of it."""
        who = ev.Who(os.getpid(), process.start_time(os.getpid()), os.geteuid(), os.getegid())
        self._executor.feed(ev.Opened(OURSELVES, who))
        for orphan in self._left:
            self._executor.feed(ev.Reserved(orphan.place, f"left by {orphan.name}", orphan.nbytes))
            pids = ", ".join(str(pid) for pid, _ in orphan.holders)
            self._log(f"{orphan.ref or 'a model'} of an earlier manager is still held by {pids}", "info")
        for kept in self._wishes:
            self._take_up(kept)
        self._watch = orphans.Watch(self._left, server.watch, server.unwatch, self._orphan_gone)
        return self._found()

    def kept(self, pins_only: bool) -> list[Kept]:
        """The wishes that are still to be kept for the next life."""
        return [kept for kept in self._untaken if kept.owner or not pins_only]

    def orphans(self) -> list[Orphan]:
        """What clients of dead managers still hold."""
        return list(self._watch.orphans.values()) if self._watch is not None else []

    def close(self) -> None:
        if self._watch is not None:
            self._watch.close()

    def _found(self) -> dict[str, object]:
        if self._dead is None and not self._wishes and not self._left:
            return {}
        return {
            "previous_pid": self._dead.pid if self._dead is not None else None,
            "pinned": len({(k.digest, k.variant, k.place) for k in self._wishes if k.owner}),
            "warm": sum(not k.owner for k in self._wishes),
            "orphans": [
                {"ref": o.ref, "place": o.place, "nbytes": o.nbytes, "pids": [pid for pid, _ in o.holders]}
                for o in self._left
            ],
        }

    def _take_up(self, kept: Kept) -> None:
        """Look a wish of the journal up, then have it again."""

        def found(form: Form | BaseException) -> None:
            self._restore(kept, form)

        self._lookups.run(lambda: self._kept_form(kept), found)

    def _kept_form(self, kept: Kept) -> Form:
        """In a thread: what a wish of the journal is about."""
        named = Named(kept.ref, kept.digest, "", "", (0, 0, 0))
        return self._resolver.form(named, kept.variant)

    def _restore(self, kept: Kept, form: Form | BaseException) -> None:
        if not isinstance(form, Form):
            self._log(f"{kept.ref} is not taken up again: {form}", "warning")
            if isinstance(form, (NoSuchModel, NoSuchVariant)):
                self._untaken.pop(kept, None)
            return  # a store that cannot be read today may be back for the next life
        device = self._executor.devices.get(kept.place)
        if device is None:
            self._log(f"{kept.ref} is not taken up again: {kept.place} is no place of this manager", "warning")
            return  # a GPU that is not there today may be back for the next life
        form = form.on(device)
        self._untaken.pop(kept, None)
        expires = float("inf") if kept.expires is None else kept.expires - time.time() + time.monotonic()
        if expires > time.monotonic():
            what = (form.key, kept.ref, form.nbytes, kept.owner, kept.reason, expires)
            self._executor.feed(ev.Restored(*what))

    def _orphan_gone(self, orphan: Orphan) -> None:
        self._log(f"{orphan.ref or 'a model'} of an earlier manager is not held any more", "info")
        self._executor.feed(ev.Reserved(orphan.place, f"left by {orphan.name}", 0))
        self._executor.journal_due = True


def await_end(paths: RuntimePaths, seconds: float = 5.0) -> None:
    """Come back when the last manager has ended altogether: one that was killed gives its lock up before its memory."""
    last = reader.read(paths.index)
    if last is None or last.pid == os.getpid() or not process.is_alive(last.pid, last.started):
        return
    try:
        fd = process.watch(last.pid)
    except OSError:
        return
    try:
        select.select([fd], [], [], seconds)
    finally:
        os.close(fd)


def left_in_places(paths: RuntimePaths) -> dict[str, int]:
    """By place, the bytes that clients of earlier lives still hold."""
    found: dict[str, int] = {}
    for orphan in orphans.find(reader.read(paths.index), journal.read(paths.journal).orphans):
        found[orphan.place] = found.get(orphan.place, 0) + orphan.nbytes
    return found
