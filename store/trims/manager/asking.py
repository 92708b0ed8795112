"""Requests that need the store or the index, and no memory: list, show, look, share, remove, recognise.

Each is work for a thread; the connection is parked meanwhile (see parking). They have a pool of their own, so that
those who list much do not keep those waiting who attach.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trims.disk import sharing
from trims.disk.catalog import Catalog, Entry
from trims.disk.store import Store
from trims.errors import NotPermitted, TrimsError, UsageError
from trims.manager.connection import QUEUE_LIMIT, Connection
from trims.manager.executor import Executor
from trims.manager.listing import Listing
from trims.manager.names import Names
from trims.manager.parking import Lookup, Parking
from trims.manager.recognising import Recognising
from trims.manager.server import Server
from trims.manager.workers import Mailbox, Pool
from trims.permission import may_change
from trims.residency import events as ev
from trims.wire import messages as wm
from trims.wire.framing import encode

Item = dict[str, object]
FOREVER = float("inf")
_LOCK = 10.0
"""Seconds to wait for the lock of a ref: an import holds it for as long as writing one small file takes."""


class Asking:
    """Answers them. `rules` is what Requests calls, by message."""

    def __init__(
        self, store: Store, index: str, names: Names, executor: Executor, server: Server, mailbox: Mailbox
    ) -> None:
        self._store, self._names, self._executor, self._server = store, names, executor, server
        self._listing = Listing(store, index, names)
        self._recognising = Recognising(store, names)
        self._catalog = Catalog(store.paths, _LOCK)
        self._parking = Parking(executor, server)
        self.pool = Pool(mailbox, "ask", 2)
        self.rules: dict[type, Callable[[Connection, Any, float], None]] = {
            wm.List: self._list,
            wm.Show: self._show,
            wm.Look: self._look,
            wm.Share: self._share,
            wm.Remove: self._remove,
            wm.Recognise: self._recognise,
        }

    def close(self) -> None:
        self.pool.close()

    def _list(self, connection: Connection, m: wm.List, _now: float) -> None:
        self._answer_with(connection, m, lambda: self._listing.models(m.after, m.limit, connection.tenant))

    def _look(self, connection: Connection, m: wm.Look, _now: float) -> None:
        self._answer_with(connection, m, lambda: self._listing.resident(m.after, m.limit, connection.tenant))

    def _show(self, connection: Connection, m: wm.Show, _now: float) -> None:
        def show() -> list[Item]:
            return self._listing.model(self._names.slow(m.ref, connection.tenant), m.after, m.limit)

        self._answer_with(connection, m, show)

    def _recognise(self, connection: Connection, m: wm.Recognise, _now: float) -> None:
        self._answer_with(connection, m, lambda: self._recognising.items(m, connection.tenant))

    def _share(self, connection: Connection, m: wm.Share, _now: float) -> None:
        def share() -> list[Item]:
            tenant = connection.tenant
            ref = self._names.owned(m.ref, tenant).ref
            try:
                entry = sharing.share(self._store, ref, tenant, m.owner, m.group, m.mode, _LOCK)
            finally:
                self._names.forget(ref)
            return [_shared(entry)]

        self._answer_with(connection, m, share)

    # ---- remove: look, have the machine let go, take the ref away

    def _remove(self, connection: Connection, m: wm.Remove, _now: float) -> None:
        tenant = connection.tenant

        def look() -> tuple[Entry, bool]:
            named = self._names.owned(m.ref, tenant)
            if tenant is not None and not may_change(named.access, tenant):
                raise NotPermitted(f"{named.ref} is not removed", "it belongs to another user", "ask its owner")
            entry = self._catalog.get(named.ref)
            return entry, not any(
                digest == entry.digest and ref != entry.ref for digest, ref, _ in self._catalog.rows()
            )

        def then(found: tuple[Entry, bool]) -> None:
            entry, last = found
            if not last:
                self._take_away(connection, m.id, entry, 0)
                return

            def decided(items: list[Item] | None, error: Item | None) -> bool:
                """The machine has let go of it, or not. Forced by a tenant, it stays for those who hold it, unnamed."""
                if error is not None and tenant is None:
                    return False
                if error is not None and not m.force:  # by its own name: the machine may know it by another's
                    self._executor.refuse(connection, m.id, {**error, "what": f"{entry.ref} is not removed"})
                    return True
                evicted = items[0].get("evicted", 0) if items else 0
                self._take_away(connection, m.id, entry, int(str(evicted)))
                return True

            connection.steps[m.id] = decided
            forced = m.force and tenant is None
            self._executor.feed(ev.ForgetAsked(connection.number, m.id, FOREVER, entry.digest, forced))

        self._park(connection, m.id, look, then)

    def _take_away(self, connection: Connection, id: int, entry: Entry, evicted: int) -> None:
        def remove() -> list[Item]:
            with self._catalog.writing(entry.ref):
                if self._catalog.get(entry.ref) != entry:
                    raise UsageError(f"{entry.ref} is not removed", "it changed meanwhile", "look at it again")
                self._catalog.remove(entry.ref)
            self._names.forget(entry.ref)
            return [{"ref": entry.ref, "digest": entry.digest, "evicted": evicted}]

        def done(items: list[Item]) -> None:
            self._reply(connection, id, items)
            self.pool.run(lambda: sharing.collect_removed(self._store, entry.digest, _LOCK), self._collected)

        self._park(connection, id, remove, done)

    def _collected(self, outcome: int | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self._executor.write(f"what was removed is left to the next gc: {outcome}", "warning")

    # ---- common to all

    def _answer_with(self, connection: Connection, m: wm.Request, work: Callable[[], list[Item]]) -> None:
        self._park(connection, m.id, work, lambda items: self._reply(connection, m.id, items))

    def _park(self, connection: Connection, id: int, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        self._parking.park(Lookup(connection, id, work, then), self.pool, FOREVER)

    def _reply(self, connection: Connection, id: int, items: list[Item]) -> None:
        frame = encode(wm.Result(id, items))
        if len(frame) > QUEUE_LIMIT:
            raise TrimsError("the answer is too long", f"{len(frame)} bytes", "ask for less at once, with a limit")
        self._executor.recording.answered(connection, id, items)
        self._server.send(connection, frame)


def _shared(entry: Entry) -> Item:
    item: Item = {"ref": entry.ref, "digest": entry.digest}
    return {**item, "owner": entry.owner, "group": entry.group, "mode": entry.mode}
