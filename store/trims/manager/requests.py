"""What clients ask for, turned into events: names become keys, durations become times, the kernel says who asks.

What is known from memory goes to the machine at once; the rest is looked up first (see parking).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from trims.errors import NoSuchModel, NotPermitted, ProtocolError, UsageError
from trims.linux import cgroup, process
from trims.manager import telling
from trims.manager.asking import Asking
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.flavours import Flavours
from trims.manager.loader import Form
from trims.manager.names import Named, is_digest
from trims.manager.parking import Lookup, Parking
from trims.manager.resolve import Resolver
from trims.manager.server import Server
from trims.manager.tenancy import Tenancy
from trims.manager.workers import Pool
from trims.permission import Asker
from trims.residency import events as ev
from trims.residency import policies
from trims.residency.loading import no_place
from trims.wire import messages as wm
from trims.wire.framing import encode

FOREVER = float("inf")
_WORDS = 500
"""Characters of a pin's owner or reason, at most."""
_ENDLESS = 1e17
"""A duration of more seconds than this is for ever: JSON has no infinity, the protocol uses a big number."""


class Host(Protocol):
    """What this module needs to know of the whole manager."""

    def welcome(self, operator: bool) -> bytes: ...

    def status(self, operator: bool = True) -> dict[str, object]: ...


class Requests:
    """The service behind the loop, for messages."""

    def __init__(
        self,
        host: Host,
        executor: Executor,
        server: Server,
        resolver: Resolver,
        lookups: Pool,
        builds: Pool,
        asking: Asking,
    ) -> None:
        self._asking = asking
        self._tenancy = Tenancy(resolver.names, executor.quotas, executor.machine)
        self._host, self._executor, self._server, self._resolver = host, executor, server, resolver
        self._lookups, self._places = lookups, set(executor.places)
        self._parking = Parking(executor, server)
        self._flavours = Flavours(executor, server, resolver, self._parking, lookups, builds)
        self._own_requests = 0
        self.last_activity = self._before = time.monotonic()
        self._rules: dict[type, Callable[[Connection, Any, float], None]] = {
            wm.Attach: self._attach,
            wm.Warm: self._warm,
            wm.Pin: self._pin,
            wm.Unpin: self._unpin,
            wm.Evict: self._evict,
            wm.WaitFor: self._wait,
            wm.Forget: self._forget,
            wm.SetPolicy: self._policy,
            wm.History: self._history,
            wm.Status: self._status,
            wm.Trace: self._trace,
            wm.Stop: self._stop,
            **asking.rules,
        }

    def message(self, connection: Connection, message: wm.Message) -> None:
        """Handle one message. Raises ProtocolError when the client broke the protocol."""
        self._before = self.last_activity
        now = self.last_activity = time.monotonic()
        if isinstance(message, wm.Release):
            self._release(connection, message)
        elif isinstance(message, wm.Hello):
            self._hello(connection, message)
        elif connection.who is None:
            raise ProtocolError("a client has to say hello first", f"it sent {type(message).__name__.lower()}")
        elif not isinstance(message, wm.Request) or message.id <= 0:
            raise ProtocolError("a request has to have an id above 0")
        else:
            self._executor.recording.asked(connection, message, now)
            tenant = connection.tenant
            if tenant is None:
                rule = self._rules.get(type(message), _not_served)
                self._parking.attempt(connection, message.id, lambda: rule(connection, message, now))
            else:
                self._parking.attempt(
                    connection, message.id, lambda: self._for_tenant(connection, tenant, message, now)
                )

    def _for_tenant(self, connection: Connection, tenant: Asker, message: wm.Request, now: float) -> None:
        message = self._tenancy.admitted(connection, tenant, message)
        self._rules.get(type(message), _not_served)(connection, message, now)

    def closed(self, connection: Connection) -> None:
        """The connection has ended, and with it its leases and what was looked up for it."""
        if connection.errand is not None:
            connection.errand.cancel()
        if connection.who is not None:
            self._executor.recording.left(connection)
            for lease in connection.leases:
                self._executor.publisher.released(lease)
            if connection.tenant is not None:
                for key in connection.leases.values():
                    self._executor.quotas.released(connection.uid, key)
            connection.leases.clear()
            self._executor.guarded(lambda: self._executor.feed(ev.Closed(connection.number)))

    def close(self) -> None:
        self._flavours.close()
        self._asking.close()

    # ---- answered at once, or not at all

    def _hello(self, connection: Connection, m: wm.Hello) -> None:
        if connection.who is not None:
            raise ProtocolError("hello was said twice")
        if m.version != wm.VERSION:
            raise ProtocolError(
                f"the client speaks version {m.version} of the protocol", f"this manager speaks {wm.VERSION}"
            )
        pid, uid, gid = process.peer(connection.sock)
        connection.who = ev.Who(pid, process.start_time(pid), uid, gid, m.job[:64], cgroup.container(pid))
        self._executor.feed(ev.Opened(connection.number, connection.who))
        self._server.send(connection, self._host.welcome(connection.tenant is None))

    def _release(self, connection: Connection, m: wm.Release) -> None:
        key = connection.leases.pop(m.lease, None)
        if key is not None:  # what is not its own is nobody's business
            if connection.tenant is not None:
                self._executor.quotas.released(connection.uid, key)
            self._executor.publisher.released(m.lease)
            self._executor.recording.released(m.lease)
            self._executor.feed(ev.Released(connection.number, m.lease))

    def _status(self, connection: Connection, m: wm.Status, _now: float) -> None:
        self._server.send(connection, encode(wm.Result(m.id, [self._host.status(connection.tenant is None)])))

    def _trace(self, connection: Connection, m: wm.Trace, _now: float) -> None:
        self.last_activity = self._before  # whoever watches does not use
        items = self._executor.recording.page(m.after, m.limit)
        self._server.send(connection, encode(wm.Result(m.id, items)))

    # ---- residence

    def _attach(self, connection: Connection, m: wm.Attach, now: float) -> None:
        self._check_place(m.place)
        deadline = _time(now, m.timeout)

        tenant = connection.tenant

        def ask(form: Form) -> None:
            ref = form.ref if tenant is None else self._tenancy.to_attach(tenant, form)
            self._executor.feed(ev.AttachAsked(connection.number, m.id, deadline, form.key, ref, form.nbytes))

        form = self._resolver.quick(m.ref, m.variant, m.prefer, tenant)
        if form is not None:
            ask(form)
            return
        lookup = Lookup(connection, m.id, lambda: self._resolver.slow(m.ref, m.variant, m.prefer, tenant), ask)
        self._parking.park(lookup, self._pool_for(connection, m.ref), deadline - now)

    def _warm(self, connection: Connection, m: wm.Warm, now: float) -> None:
        self._check_place(m.place)
        deadline = _time(now, m.timeout)
        ttl = None if m.ttl is None else _time(0.0, m.ttl)

        def ask(form: Form, number: int = connection.number, request: int = m.id) -> None:
            tenant = connection.tenant
            ref = form.ref if tenant is None else self._tenancy.to_warm(tenant, form, ttl is not None)
            if m.dry_run:
                self._executor.feed(ev.Tick())  # what is due by now, is
                seen = connection.foresight = connection.foresight if m.together else {}
                item = self._executor.machine.foresee(seen, form.key, ref, form.nbytes, m.evict)
                self._answer(connection, m.id, item)
                return
            what = (number, request, deadline, form.key, ref, form.nbytes)
            self._executor.feed(ev.WarmAsked(*what, ttl=ttl, wait=m.wait, evict=m.evict, dry_run=m.dry_run))

        def behind(form: Form) -> None:
            """The client had its answer: from here on it is our own wish."""
            self._own_requests += 1
            ask(form, 0, self._own_requests)

        self._flavours.find(connection, m, deadline - now, ask, None if m.wait or m.dry_run else behind)

    def _pin(self, connection: Connection, m: wm.Pin, now: float) -> None:
        self._check_place(m.place)
        deadline = _time(now, m.timeout)
        expires = FOREVER if m.expires is None else _time(now, m.expires)
        owner = m.owner or f"uid {connection.uid}"
        if len(owner) > _WORDS or len(m.reason) > _WORDS:  # they are kept: with the pin, in the journal, in history
            raise UsageError("the pin is not put", f"its owner or reason is longer than {_WORDS} characters")

        def ask(form: Form) -> None:
            tenant = connection.tenant
            ref = form.ref if tenant is None else self._tenancy.to_pin(tenant, form)
            what = (connection.number, m.id, deadline, form.key, ref, form.nbytes)
            self._executor.feed(ev.PinAsked(*what, owner=owner, reason=m.reason, expires=expires))

        self._flavours.find(connection, m, deadline - now, ask)

    # ---- everything else about models

    def _unpin(self, connection: Connection, m: wm.Unpin, now: float) -> None:
        def ask(digest: str, ref: str) -> None:
            self._executor.feed(ev.UnpinAsked(connection.number, m.id, FOREVER, digest, ref, m.owner))

        self._named(connection, m.id, m.ref, FOREVER, ask)

    def _evict(self, connection: Connection, m: wm.Evict, now: float) -> None:
        self._check_place(m.place)
        deadline = _time(now, m.timeout)

        def ask(digest: str, ref: str) -> None:
            if connection.tenant is not None:
                self._tenancy.to_evict(connection.tenant, digest, ref, m.place)
            what = (connection.number, m.id, deadline, m.place, digest, ref, m.idle, m.until_free)
            self._executor.feed(ev.EvictAsked(*what, force=m.force, wait=m.wait, dry_run=m.dry_run))

        self._named(connection, m.id, m.ref, deadline - now, ask)

    def _wait(self, connection: Connection, m: wm.WaitFor, now: float) -> None:
        self._check_place(m.place)
        deadline = _time(now, m.timeout)
        if m.condition == "ready":
            item: dict[str, object] = {"condition": "ready", "ref": m.ref, "place": m.place, "held": True}
            self._answer(connection, m.id, item)
            return
        if not m.ref and m.condition != "free":
            raise UsageError(f"a wait for {m.condition} needs a model")

        def ask(digest: str, ref: str) -> None:
            what = (connection.number, m.id, deadline, m.condition, m.place, digest, ref, m.nbytes)
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

    def _policy(self, connection: Connection, m: wm.SetPolicy, _now: float) -> None:
        self._executor.feed(ev.PolicyAsked(connection.number, m.id, FOREVER, policies.make(m.policy)))

    def _stop(self, connection: Connection, m: wm.Stop, now: float) -> None:
        self._executor.feed(ev.StopAsked(connection.number, m.id, _time(now, m.timeout), drain=m.drain))

    def _answer(self, connection: Connection, id: int, item: dict[str, object]) -> None:
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

        names = self._resolver.names
        named = names.quick(text, connection.tenant)
        if named is not None:
            found(named)
            return
        lookup = Lookup(connection, id, lambda: names.slow(text, connection.tenant), found, failed)
        self._parking.park(lookup, self._pool_for(connection, text), timeout)

    def _pool_for(self, connection: Connection, text: str) -> Pool:
        """For a tenant every ref of a digest is looked at: that shall not keep those waiting who name a model."""
        return self._asking.pool if connection.tenant is not None and text[:3] == "id:" else self._lookups

    def _check_place(self, place: str) -> None:
        if place not in self._places:
            raise no_place(place)


def _not_served(_connection: Connection, message: wm.Request, _now: float) -> None:
    raise NotPermitted(f"{type(message).__name__.lower()} is not served", "the manager is of one user's scope")


def _time(now: float, seconds: float) -> float:
    """The time of the clock after a duration that a client named."""
    return FOREVER if seconds >= _ENDLESS else now + max(0.0, seconds)
