"""The report of a redirected program: a line of JSON for each load, and one for each process at its end.

Lines are appended whole, by one write each, so that many processes can report into one file. A report that cannot be
written is said once, and disturbs nobody.
"""

from __future__ import annotations

import json
import os
import sys
import time

from trims.redirect.environment import APPENDING, wishes

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import Any

    from trims.disk.sources import Known

_MOST_LINES = 16  # about files, a process: the rest are told by the report alone
_said: set[str] = set()


class Totals:
    """What one process did. native_seconds: of those redirected loads whose native load was measured once."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.redirected = self.native = self.nbytes = 0
        self.seconds = self.native_seconds = self.saved_seconds = 0.0
        self.ended = False


_totals = Totals(0)


def totals() -> Totals:
    """Those of this process: a forked one begins anew."""
    global _totals
    if _totals.pid != os.getpid():
        _totals = Totals(os.getpid())
        _said.clear()
        _end_as_child()
    return _totals


def _end_as_child() -> None:
    """Children of multiprocessing end without what is registered with atexit."""
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None and util is not None and process.parent_process() is not None:
        util.Finalize(None, ended, exitpriority=-100)


def redirected(
    known: Known, framework: str, nbytes: int, seconds: float, how: str, path: str, measured: dict[str, float]
) -> None:
    """A load took shared memory. measured: framework to seconds of a native load of the file, where known."""
    mine = totals()
    mine.redirected += 1
    mine.nbytes += nbytes
    mine.seconds += seconds
    once = measured.get(framework)
    saved = None if once is None else once - seconds
    if once is not None and saved is not None:
        mine.native_seconds += once
        mine.saved_seconds += saved
    _add(
        "load", path=path, framework=framework, outcome="redirected", model=known.ref, id=known.model, how=how,
        nbytes=nbytes, seconds=seconds, native_seconds=once, saved_seconds=saved, why=None,
    )  # fmt: skip


def native(known: Known | None, framework: str, seconds: float, path: str) -> None:
    """A native load that was measured."""
    if wishes().measures:
        totals().native += 1  # otherwise it fell back, and is counted
    _add(
        "load", path=path, framework=framework, outcome="native", model=known and known.ref, id=known and known.model,
        how=None, nbytes=0, seconds=seconds, native_seconds=seconds, saved_seconds=None, why=None,
    )  # fmt: skip


def fell_back(path: str, framework: str, why: str, known: Known | None, outcome: str = "native") -> None:
    """A load that is going to be native, or is refused."""
    if outcome == "native":
        totals().native += 1
    _add(
        "fallback", path=path, framework=framework, outcome=outcome, model=known and known.ref,
        id=known and known.model, why=why,
    )  # fmt: skip


def ended() -> None:
    """This process ends: its totals, and what of the models that are still open it shares and has to itself. Once."""
    mine = totals()
    if mine.ended:
        return
    mine.ended = True
    shared, private = _memory()
    _add(
        "process", argv=list(getattr(sys, "orig_argv", sys.argv)), redirected=mine.redirected, native=mine.native,
        nbytes=mine.nbytes, seconds=mine.seconds, native_seconds=mine.native_seconds, saved_seconds=mine.saved_seconds,
        shared_nbytes=shared, private_nbytes=private,
    )  # fmt: skip


def say(line: str, about: str, quiet: bool = False) -> None:
    """One line on stderr about a file, once a process; after many files only that there are more."""
    totals()
    if quiet or about in _said or len(_said) > _MOST_LINES:
        return
    _said.add(about)
    if len(_said) > _MOST_LINES:
        line = "trims: more files are loaded natively, which --report lists"
    from trims.errors import one_line

    try:
        sys.stderr.write(one_line(line) + "\n")
        sys.stderr.flush()
    except Exception:  # closed, or none, or a program's own: there is nobody to tell
        pass


def _memory() -> tuple[int | None, int | None]:
    """(shared, private) bytes of the models that are open, or None where nobody can tell."""
    from trims.errors import TrimsError

    opening = sys.modules.get("trims.redirect.opening")
    shared = private = 0
    try:
        for model in opening.living() if opening is not None else ():
            memory = model.memory()
            shared += memory.shared
            private += memory.private
    except (TrimsError, OSError, AttributeError):
        return None, None
    return shared, private


def _add(what: str, **fields: Any) -> None:
    path = wishes().report
    if not path:
        return
    record = {"schema": "trims.exec/1", "what": what, "pid": os.getpid(), "at": round(time.time(), 3), **fields}
    data = json.dumps(record, separators=(",", ":")).encode("ascii", "backslashreplace") + b"\n"
    try:
        fd = os.open(path, APPENDING, 0o644)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError as error:
        say(f"trims: the report is incomplete: {path}: {os.strerror(error.errno or 0)}", path)
