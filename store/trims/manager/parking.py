"""Look-ups: what a request has to wait for before the machine can decide about it, done in a thread.

Meanwhile the connection is *parked*: what its client sends waits behind, so that one client's requests stay in order;
others notice nothing. The request's timeout holds, and a client that goes away takes its look-up with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from trims.errors import TimedOut, TrimsError
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.server import Server
from trims.manager.variants import Errand
from trims.manager.workers import Pool

LEAST = 1.0
"""Seconds that a look-up is given even if its request would wait for less: it takes no longer unless a disk hangs, and
only the machine can say what a request without patience is to be told."""


class Lookup:
    """One parked request: first `work` in a thread, then, in the loop, `then` with what came of it.

    failed: may take an error over (True); otherwise the request is refused with it.
    """

    def __init__(
        self,
        connection: Connection,
        request: int,
        work: Callable[[], Any],
        then: Callable[[Any], None],
        failed: Callable[[BaseException], bool] = lambda _: False,
        errand: Errand | None = None,
    ) -> None:
        self.connection, self.request = connection, request
        self.work, self.then, self.failed, self.errand = work, then, failed, errand
        self._over = False

    def end(self) -> bool:
        """Let the connection go on, once. Whether its client is still there to be answered."""
        if self._over:
            return False
        self._over = True
        self.connection.parked, self.connection.errand = 0, None
        return not self.connection.closed


class Parking:
    """Runs look-ups."""

    def __init__(self, executor: Executor, server: Server) -> None:
        self._executor, self._server = executor, server

    def park(self, lookup: Lookup, pool: Pool, timeout: float) -> None:
        """Begin. timeout: seconds, inf for none."""
        connection = lookup.connection
        connection.parked, connection.errand = lookup.request, lookup.errand
        pool.run(lookup.work, lambda outcome: self._done(lookup, outcome))
        if timeout != float("inf"):
            self._server.at(time.monotonic() + max(LEAST, timeout), lambda: self._late(lookup, timeout))

    def attempt(self, connection: Connection, request: int, act: Callable[[], None]) -> None:
        """Do something for a request; whatever goes wrong is its answer, and nobody else's trouble."""
        try:
            act()
        except TrimsError as error:
            self._refuse(connection, request, error)
        except Exception as error:
            self._executor.blunder(error)
            why = repr(error) if connection.tenant is None else ""
            self._refuse(connection, request, TrimsError("the manager failed", why, "see its log"))

    def _refuse(self, connection: Connection, request: int, error: TrimsError) -> None:
        self._executor.refuse(connection, request, error.to_dict())

    def _done(self, lookup: Lookup, outcome: Any) -> None:
        if not lookup.end():
            return
        self._executor.recording.looked_up(lookup.connection, lookup.request)

        def act() -> None:
            if not isinstance(outcome, BaseException):
                lookup.then(outcome)
            elif not lookup.failed(outcome):
                raise outcome

        self.attempt(lookup.connection, lookup.request, act)
        self._server.resume(lookup.connection)

    def _late(self, lookup: Lookup, timeout: float) -> None:
        if lookup.end():
            if lookup.errand is not None:
                lookup.errand.cancel()
            error = TimedOut("the store did not answer in time", f"{timeout:g} s")
            self._refuse(lookup.connection, lookup.request, error)
            self._server.resume(lookup.connection)
