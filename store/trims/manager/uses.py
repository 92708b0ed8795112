"""What the manager tells the memory of uses: gathered in the loop when the journal is due, written by its thread.

An attach costs nothing here. A residency says when it was last used at the moment it goes, and those that stay are
asked when the journal is written; so a kill loses the uses of a minute at most.
"""

from __future__ import annotations

import os
import time

from trims.disk import uses
from trims.residency.events import Key
from trims.residency.machine import Machine
from trims.residency.states import LOADING
from trims.residency.views import ResidencyView


class Uses:
    """The uses that are not written yet. `note` and `take` in the loop, `write` in a thread."""

    def __init__(self, machine: Machine, store_id: str) -> None:
        self._machine = machine
        self._path = uses.path(store_id, os.environ)
        self._gone: dict[str, float] = {}

    def note(self, key: Key) -> None:
        """This residency goes."""
        view = self._machine.residency(key)
        if view is not None:
            self._put(self._gone, view)

    def take(self) -> dict[str, float]:
        """All uses that are known now, and not of old."""
        found, self._gone = self._gone, {}
        for view in self._machine.residencies():
            if view.state != LOADING:
                self._put(found, view)
        return found

    def write(self, taken: dict[str, float]) -> None:
        """Raises OSError."""
        if taken:
            uses.merge(self._path, taken)

    def _put(self, into: dict[str, float], view: ResidencyView) -> None:
        ago = 0.0 if view.leases else max(0.0, time.monotonic() - view.last_use)
        into[view.key.digest] = max(into.get(view.key.digest, 0.0), time.time() - ago)
