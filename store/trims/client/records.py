"""Reading what the manager records of its work: page after page, from a number on, and what was lost in between.

The records are those that trims-protocol(7) lists under `trace`. The manager keeps nothing for a reader, so a cursor
that is not read for long finds that records are gone: it counts them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from trims.client.control import Control, Item

_PATIENCE = 10.0


class Cursor:
    """A place in the manager's records. after: 0 begins with the oldest that it still has, below 0 with the next one.

    lost: records that were gone before they could be read. now: the manager's CLOCK_MONOTONIC at the last answer.
    """

    def __init__(self, control: Control, after: int = 0) -> None:
        self._control = control
        self.lost, self.now = 0, 0.0
        self._next = after
        if after < 0:
            self._page()

    def take(self) -> list[Item]:
        """All records since the last call, oldest first. Raises ManagerUnreachable when the manager has ended."""
        found: list[Item] = []
        more = True
        while more:
            records, more = self._page()
            found += records
        return found

    def _page(self) -> tuple[list[Item], bool]:
        where, *records = self._control.request("trace", wait=_PATIENCE, after=self._next)
        self._next, self.now = int(where["next"]), float(where["now"])
        self.lost += int(where["lost"])
        return records, bool(where["more"])
