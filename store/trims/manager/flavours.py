"""From what a model is wanted for to the form that serves it, with that form built first where the store lacks it."""

from __future__ import annotations

from collections.abc import Callable

from trims.errors import TrimsError
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.loader import Form
from trims.manager.parking import Lookup, Parking
from trims.manager.resolve import NeedsBuilding, Resolver
from trims.manager.server import Server
from trims.manager.variants import Errand
from trims.manager.workers import Pool
from trims.wire.framing import encode
from trims.wire.messages import Pin, Result, Warm


class Flavours:
    """Finds forms for warm and pin."""

    def __init__(
        self, executor: Executor, server: Server, resolver: Resolver, parking: Parking, lookups: Pool, builds: Pool
    ) -> None:
        self._executor, self._server, self._resolver, self._parking = executor, server, resolver, parking
        self._lookups, self._builds = lookups, builds
        self._background: set[Errand] = set()

    def find(
        self,
        connection: Connection,
        m: Warm | Pin,
        timeout: float,
        ask: Callable[[Form], None],
        behind: Callable[[Form], None] | None = None,
    ) -> None:
        """Call `ask` with the form that `m` names.

        behind: with this the client does not wait for a build: it is answered at once, and this is called later.
        """
        form = self._resolver.quick_flavour(m.ref, m.flavour, connection.tenant)
        if form is not None:
            ask(form)
            return

        def failed(error: BaseException) -> bool:
            if not isinstance(error, NeedsBuilding):
                return False
            if behind is not None:
                self._build_behind(connection, m, error, behind)
            else:
                errand = Errand()
                build = Lookup(connection, m.id, lambda: self._build(error, errand), ask, errand=errand)
                self._parking.park(build, self._builds, timeout)
            return True

        lookup = Lookup(
            connection, m.id, lambda: self._resolver.slow_flavour(m.ref, m.flavour, connection.tenant), ask, failed
        )
        self._parking.park(lookup, self._lookups, timeout)

    def close(self) -> None:
        """Stop what is being built for nobody in particular."""
        for errand in list(self._background):
            errand.cancel()

    def _build(self, needed: NeedsBuilding, errand: Errand) -> Form:
        """In a thread: the variant, or raw where that would do as well and it cannot be had."""
        try:
            return self._resolver.build(needed, errand)
        except TrimsError as error:
            if not needed.optional or errand.cancelled:
                raise
            text = f"{needed.named.ref} is used raw: {error}"
            self._executor.post(lambda: self._executor.write(text, "warning"))
            return self._resolver.form(needed.named, "raw")

    def _build_behind(
        self, connection: Connection, m: Warm | Pin, needed: NeedsBuilding, ask: Callable[[Form], None]
    ) -> None:
        errand = Errand()
        self._background.add(errand)

        def done(outcome: Form | BaseException) -> None:
            self._background.discard(errand)
            if isinstance(outcome, Form):
                ask(outcome)
            else:
                self._executor.write(f"{needed.named.ref} was not warmed: {outcome}", "warning")

        self._builds.run(lambda: self._build(needed, errand), done)
        item: dict[str, object] = {"ref": needed.named.ref, "digest": needed.named.digest, "variant": ""}
        item |= {"place": m.place, "nbytes": 0, "outcome": "loading", "seconds": 0.0, "victims": []}
        self._executor.recording.answered(connection, m.id, [item])
        self._server.send(connection, encode(Result(m.id, [item])))
