"""What outlives the manager, written down: the journal of pins and of what is warm, and when models were last used.

What is to be written is taken in the loop and written by a thread; one writing at a time.
"""

from __future__ import annotations

from collections.abc import Callable

from trims.manager import journal
from trims.manager.inheritance import Inheritance
from trims.manager.runtime import Tenure
from trims.manager.uses import Uses
from trims.manager.workers import Mailbox, Pool
from trims.residency.machine import Machine

Taken = tuple[journal.State, dict[str, float]]


class Keeper:
    """tenure: the journal is written only while the directory it is in is ours."""

    def __init__(
        self,
        path: str,
        tenure: Tenure,
        machine: Machine,
        earlier: Inheritance,
        uses: Uses,
        log: Callable[[str, str], None],
        mailbox: Mailbox,
    ) -> None:
        self._path, self._tenure, self._machine, self._earlier = path, tenure, machine, earlier
        self._uses, self._log, self._pool = uses, log, Pool(mailbox, "save", 1)
        self.busy = False

    def take(self, pins_only: bool = False) -> Taken:
        """What is to be written now. In the loop."""
        earlier = self._earlier
        state = journal.take(self._machine, earlier.orphans(), earlier.counters, pins_only)
        state.kept.extend(earlier.kept(pins_only))
        return state, self._uses.take()

    def save(self) -> None:
        """Write it behind the loop's back."""
        taken, self.busy = self.take(), True

        def done(outcome: BaseException | None) -> None:
            self.busy = False
            if outcome is not None:
                self._log(f"the journal cannot be written: {outcome}", "warning")

        self._pool.run(lambda: self._write(taken), done)

    def finish(self, taken: Taken) -> None:
        """Write this as the last word, when what was being written is."""
        self._pool.close()
        try:
            self._write(taken)
        except OSError as error:
            self._log(f"the journal cannot be written: {error}", "warning")

    def _write(self, taken: Taken) -> None:
        state, uses = taken
        if self._tenure.lasts():
            journal.write(self._path, state)
        self._uses.write(uses)
