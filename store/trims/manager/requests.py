"""What clients ask for, turned into events: names become keys, durations become times, the kernel says who asks.

What is known from memory goes to the machine at once; the rest is looked up first (see parking).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from trims.errors import NotPermitted, ProtocolError, UsageError
from trims.linux import cgroup, process
from trims.manager.about import FOREVER, About, clock_time
from trims.manager.asking import Asking
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.flavours import Flavours
from trims.manager.loader import Form
from trims.manager.parking import Lookup, Parking
from trims.manager.resolve import Resolver
from trims.manager.server import Server
from trims.manager.tenancy import Tenancy
from trims.manager.whereabouts import Whereabouts
from trims.manager.workers import Pool
from trims.permission import Asker
from trims.residency import events as ev
from trims.residency import policies
from trims.residency.events import Key
from trims.wire import messages as wm
from trims.wire.framing import encode

_PATIENCE = 60.0
"""Seconds for a wish of the manager's own to come true."""
_WORDS = 500
"""Characters of a pin's owner or reason, at most."""


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
        whereabouts: Whereabouts,
        tenancy: Tenancy,
    ) -> None:
        self._tenancy, self._whereabouts = tenancy, whereabouts
        self._about = About(executor, server, resolver.names, self._tenancy, whereabouts, lookups, asking.pool)
        self._host, self._executor, self._server, self._resolver = host, executor, server, resolver
        self._parking = Parking(executor, server)
        self._flavours = Flavours(executor, server, resolver, self._parking, lookups, builds)
        self._own_requests = 0
        self.last_activity = self._before = time.monotonic()
        self._rules: dict[type, Callable[[Connection, Any, float], None]] = {
            wm.Attach: self._attach,
            wm.Warm: self._warm,
            wm.Pin: self._pin,
            wm.SetPolicy: self._policy,
            wm.Status: self._status,
            wm.Trace: self._trace,
            wm.Stop: self._stop,
            **self._about.rules,
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
        self._whereabouts.check(m.place)
        deadline = clock_time(now, m.timeout)

        tenant = connection.tenant

        def ask(form: Form) -> None:
            form = self._whereabouts.form(form, m.place)
            ref = form.ref if tenant is None else self._tenancy.to_attach(tenant, form)
            self._executor.feed(ev.AttachAsked(connection.number, m.id, deadline, form.key, ref, form.nbytes))

        form = self._resolver.quick(m.ref, m.variant, m.prefer, tenant)
        if form is not None:
            ask(form)
            return
        lookup = Lookup(connection, m.id, lambda: self._resolver.slow(m.ref, m.variant, m.prefer, tenant), ask)
        self._parking.park(lookup, self._about.pool_for(connection, m.ref), deadline - now)

    def _warm(self, connection: Connection, m: wm.Warm, now: float) -> None:
        self._whereabouts.check(m.place)
        deadline = clock_time(now, m.timeout)
        ttl = None if m.ttl is None else clock_time(0.0, m.ttl)

        def ask(form: Form, number: int = connection.number, request: int = m.id) -> None:
            tenant = connection.tenant
            form = self._whereabouts.form(form, m.place)
            ref = form.ref if tenant is None else self._tenancy.to_warm(tenant, form, ttl is not None)
            if m.dry_run:
                self._executor.feed(ev.Tick())  # what is due by now, is
                seen = connection.foresight = connection.foresight if m.together else {}
                item = self._executor.machine.foresee(seen, form.key, ref, form.nbytes, m.evict)
                self._about.answer(connection, m.id, item)
                return
            what = (number, request, deadline, form.key, ref, form.nbytes)
            self._executor.feed(ev.WarmAsked(*what, ttl=ttl, wait=m.wait, evict=m.evict, dry_run=m.dry_run))

        def behind(form: Form) -> None:
            """The client had its answer: from here on it is our own wish."""
            self._own_requests += 1
            ask(form, 0, self._own_requests)

        self._flavours.find(connection, m, deadline - now, ask, None if m.wait or m.dry_run else behind)

    def _pin(self, connection: Connection, m: wm.Pin, now: float) -> None:
        self._whereabouts.check(m.place)
        deadline = clock_time(now, m.timeout)
        expires = FOREVER if m.expires is None else clock_time(now, m.expires)
        owner = m.owner or f"uid {connection.uid}"
        if len(owner) > _WORDS or len(m.reason) > _WORDS:  # they are kept: with the pin, in the journal, in history
            raise UsageError("the pin is not put", f"its owner or reason is longer than {_WORDS} characters")

        def ask(form: Form) -> None:
            tenant = connection.tenant
            form = self._whereabouts.form(form, m.place)
            ref = form.ref if tenant is None else self._tenancy.to_pin(tenant, form)
            what = (connection.number, m.id, deadline, form.key, ref, form.nbytes)
            self._executor.feed(ev.PinAsked(*what, owner=owner, reason=m.reason, expires=expires))

        self._flavours.find(connection, m, deadline - now, ask)

    def keep_on_host(self, key: Key, ref: str) -> None:
        """A model gave way on a GPU: have it on the host, if there is room that nobody else needs."""
        form = self._executor.form_of(key, ref)
        self._own_requests += 1
        asked = (0, self._own_requests, time.monotonic() + _PATIENCE)
        self._executor.feed(ev.WarmAsked(*asked, form.key, ref, form.nbytes, wait=False, evict=False))

    # ---- the manager itself

    def _policy(self, connection: Connection, m: wm.SetPolicy, _now: float) -> None:
        self._executor.feed(ev.PolicyAsked(connection.number, m.id, FOREVER, policies.make(m.policy)))

    def _stop(self, connection: Connection, m: wm.Stop, now: float) -> None:
        self._executor.feed(ev.StopAsked(connection.number, m.id, clock_time(now, m.timeout), drain=m.drain))


def _not_served(_connection: Connection, message: wm.Request, _now: float) -> None:
    raise NotPermitted(f"{type(message).__name__.lower()} is not served", "the manager is of one user's scope")
