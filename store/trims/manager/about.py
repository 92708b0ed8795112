"""Requests about a model that is named, and is not to be brought here: unpin, evict, wait, forget, history.

A name is looked for among the store's refs, else among what is resident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trims.errors import NoSuchModel, UsageError
from trims.manager import telling
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.names import Named, Names, is_digest
from trims.manager.parking import Lookup, Parking
from trims.manager.server import Server
from trims.manager.tenancy import Tenancy
from trims.manager.whereabouts import Whereabouts
from trims.manager.workers import Pool
from trims.places import DISK, HOST, is_gpu
from trims.residency import events as ev
from trims.wire import messages as wm
from trims.wire.framing import encode

FOREVER = float("inf")
_ENDLESS = 1e17
"""A duration of more seconds than this is for ever: JSON has no infinity, the protocol uses a big number."""


class About:
    """Answers them, and has what other requests need as well. `rules` is what Requests calls, by message."""

    def __init__(
        self,
        executor: Executor,
        server: Server,
        names: Names,
        tenancy: Tenancy,
        whereabouts: Whereabouts,
        lookups: Pool,
        asking: Pool,
    ) -> None:
        self._executor, self._server, self._names, self._tenancy = executor, server, names, tenancy
        self._lookups, self._asking_pool = lookups, asking
        self._parking = Parking(executor, server)
        self.whereabouts = whereabouts
        self.rules: dict[type, Callable[[Connection, Any, float], None]] = {
            wm.Unpin: self._unpin,
            wm.Evict: self._evict,
            wm.WaitFor: self._wait,
            wm.Forget: self._forget,
            wm.History: self._history,
        }

    def _unpin(self, connection: Connection, m: wm.Unpin, now: float) -> None:
        def ask(digest: str, ref: str) -> None:
            self._executor.feed(ev.UnpinAsked(connection.number, m.id, FOREVER, digest, ref, m.owner))

        self._named(connection, m.id, m.ref, FOREVER, ask)

    def _evict(self, connection: Connection, m: wm.Evict, now: float) -> None:
        self.whereabouts.check(m.place)
        deadline = clock_time(now, m.timeout)
        if m.to not in ("", HOST, DISK) or (m.to == HOST and not (m.ref and is_gpu(m.place))):
            raise UsageError(
                f"a model cannot leave {m.place} for {m.to}", "", "what leaves a GPU can be kept on the host"
            )

        def ask(digest: str, ref: str) -> None:
            place = self.whereabouts.holding(m.place, digest)
            if connection.tenant is not None:
                self._tenancy.to_evict(connection.tenant, digest, ref, place)
            what = (connection.number, m.id, deadline, place, digest, ref, m.idle, m.until_free)
            event = ev.EvictAsked(*what, force=m.force, wait=m.wait, dry_run=m.dry_run)
            if m.to == HOST and not m.dry_run:
                self._demote(connection, event)
            else:
                self._executor.feed(event)

        self._named(connection, m.id, m.ref, deadline - now, ask)

    def _demote(self, connection: Connection, event: ev.EvictAsked) -> None:
        """Have the model's forms in the place resident on the host, one after the other; then evict them.

        That they could go is asked first: nothing gives way on the host for what is then refused.
        """
        executor = self._executor
        there = [v for v in executor.machine.residencies() if v.key.digest == event.digest]
        forms = [executor.form_of(view.key, event.ref) for view in there if view.key.place == event.place]
        asked = (connection.number, event.request, event.deadline)
        steps: list[ev.Event] = [replace(event, dry_run=True, force=event.force or event.wait)]
        steps += [ev.WarmAsked(*asked, form.key, form.ref, form.nbytes) for form in forms]

        def step(items: list[dict[str, object]] | None, error: dict[str, object] | None) -> bool:
            if error is not None:
                return False  # it stays where it is, and the client is told why
            executor.post(following)  # when this event is done with
            return True

        def following() -> None:
            if connection.closed:
                return
            if steps:
                connection.steps[event.request] = step
            executor.feed(steps.pop(0) if steps else event)

        following()

    def _wait(self, connection: Connection, m: wm.WaitFor, now: float) -> None:
        self.whereabouts.check(m.place)
        deadline = clock_time(now, m.timeout)
        if m.condition == "ready":
            item: dict[str, object] = {"condition": "ready", "ref": m.ref, "place": m.place, "held": True}
            self.answer(connection, m.id, item)
            return
        if not m.ref and m.condition != "free":
            raise UsageError(f"a wait for {m.condition} needs a model")

        def ask(digest: str, ref: str) -> None:
            place = self.whereabouts.find(m.place, digest)
            what = (connection.number, m.id, deadline, m.condition, place, digest, ref, m.nbytes)
            self._executor.feed(ev.WaitAsked(*what))

        self._named(connection, m.id, m.ref, deadline - now, ask)

    def _forget(self, connection: Connection, m: wm.Forget, now: float) -> None:
        if not is_digest(m.digest):
            raise UsageError(f"bad digest {m.digest!r}", "it takes 64 hexadecimal digits")
        self._executor.feed(ev.ForgetAsked(connection.number, m.id, FOREVER, m.digest, m.force))

    def _history(self, connection: Connection, m: wm.History, _now: float) -> None:
        if m.digest and not is_digest(m.digest):
            raise UsageError(f"bad digest {m.digest!r}", "it takes 64 hexadecimal digits")

        def ask(digest: str, _ref: str) -> None:
            items = telling.items(self._executor.machine.history(digest), m.limit)
            if connection.tenant is not None:
                items = self._executor.discretion.history(connection.tenant, items)
            self._server.send(connection, encode(wm.Result(m.id, items)))

        if m.digest and connection.tenant is None:
            ask(m.digest, "")
        else:
            self._named(connection, m.id, f"id:{m.digest}" if m.digest else m.ref, FOREVER, ask)

    def answer(self, connection: Connection, id: int, item: dict[str, object]) -> None:
        """Answer a request that the machine has no part in."""
        if connection.tenant is not None:
            (item,) = self._executor.discretion.items(connection.tenant, [item])
        self._executor.recording.answered(connection, id, [item])
        self._server.send(connection, encode(wm.Result(id, [item])))

    def _named(
        self, connection: Connection, id: int, text: str, timeout: float, ask: Callable[[str, str], None]
    ) -> None:
        """Find what `text` names ("" for no model) among the store's refs, else among what is resident; then ask."""
        if not text:
            ask("", "")
            return

        def found(named: Named) -> None:
            ask(named.digest, named.ref)

        def failed(error: BaseException) -> bool:
            if not isinstance(error, NoSuchModel) or connection.tenant is not None:
                return False
            for view in self._executor.machine.residencies():  # it may have left the store, and still be here
                if text in (view.ref, view.ref.removesuffix(":latest"), f"id:{view.key.digest}"):
                    ask(view.key.digest, view.ref)
                    return True
            return False

        names = self._names
        named = names.quick(text, connection.tenant)
        if named is not None:
            found(named)
            return
        lookup = Lookup(connection, id, lambda: names.slow(text, connection.tenant), found, failed)
        self._parking.park(lookup, self.pool_for(connection, text), timeout)

    def pool_for(self, connection: Connection, text: str) -> Pool:
        """For a tenant every ref of a digest is looked at: that shall not keep those waiting who name a model."""
        return self._asking_pool if connection.tenant is not None and text[:3] == "id:" else self._lookups


def clock_time(now: float, seconds: float) -> float:
    """The time of the clock after a duration that a client named."""
    return FOREVER if seconds >= _ENDLESS else now + max(0.0, seconds)
