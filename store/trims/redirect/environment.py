"""What `trims exec` was asked for, as variables of the environment: one table of their names, and their reading.

The command writes them, the processes that inherit them read them once. TRIMS_STORE and TRIMS_SOCKET mean what they
mean everywhere; they are absolute, since a program may change its directory.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

EXEC = "TRIMS_EXEC"
"""Set in a redirected program: `redirect`, or `native` where loads are only measured."""
HOME = "TRIMS_EXEC_HOME"
"""Directories of trims' own installation, the package's first, joined as PATH is."""
ABI = "TRIMS_EXEC_ABI"
"""Suffix of the compiled modules that trims' own Python takes."""
PYTHON = "TRIMS_EXEC_PYTHON"
"""trims' own interpreter."""
PLACE = "TRIMS_EXEC_PLACE"
REQUIRE = "TRIMS_EXEC_REQUIRE"
"""Models that have to be redirected, `ref=digest` with spaces between."""
REPORT = "TRIMS_EXEC_REPORT"
IMPORT = "TRIMS_EXEC_IMPORT"
"""`1`: files that are not known are imported."""
MAIN = "TRIMS_EXEC_MAIN"
"""The process that is the program itself: `pid`, or `pid:fd` with the memory where redirected models are ticked off."""
TIMEOUT = "TRIMS_EXEC_TIMEOUT"
QUIET = "TRIMS_EXEC_QUIET"
FALLBACK = "TRIMS_FALLBACK"
DISABLE = "TRIMS_DISABLE"
TICKS = "trims-exec-ticks"
"""Name of the memory where redirected models are ticked off."""
OWN = (EXEC, HOME, ABI, PYTHON, PLACE, REQUIRE, REPORT, IMPORT, MAIN, TIMEOUT, QUIET)
"""All that nobody but `trims exec` sets."""
APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
"""How a report is opened: a pipe that nobody reads is not waited for."""


class Wishes:
    """What was asked for. Absent variables are the defaults of the command.

    require: digest to ref. main: pid of the program itself, or 0. ticks: descriptor there of the memory for ticks, or
    -1. timeout: seconds that a load may take.
    """

    __slots__ = (
        "fails", "imports", "main", "measures", "place", "python", "quiet", "report", "require", "socket", "store",
        "ticks", "timeout",
    )  # fmt: skip

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.measures = environ.get(EXEC) == "native"
        self.place = environ.get(PLACE) or "auto"
        self.python = environ.get(PYTHON) or sys.executable
        self.fails = environ.get(FALLBACK) == "fail"
        self.imports = environ.get(IMPORT) == "1"
        self.quiet = environ.get(QUIET) == "1"
        self.report = environ.get(REPORT) or ""
        pairs = (word.rpartition("=") for word in environ.get(REQUIRE, "").split())
        self.require = {digest: ref for ref, _, digest in pairs}
        pid, _, fd = environ.get(MAIN, "").partition(":")
        self.main = int(pid) if pid.isdecimal() else 0
        self.ticks = int(fd) if fd.isdecimal() else -1
        self.timeout = _seconds(environ.get(TIMEOUT, ""))
        self.store = environ.get("TRIMS_STORE") or _usual_store(environ)
        self.socket = environ.get("TRIMS_SOCKET") or None


_wishes: Wishes | None = None


def wishes() -> Wishes:
    """What this process inherited at its start. Raises nothing: there is no good moment in a program that loads."""
    global _wishes
    if _wishes is None:
        finder = sys.modules.get("_trims_finder")
        _wishes = Wishes(finder.environ if finder is not None else os.environ)
    return _wishes


def sees_store() -> bool:
    """Whether this process can read the store: otherwise it is the manager who knows what is in it."""
    return os.access(f"{wishes().store}/store.json", os.R_OK)


def _usual_store(environ: Mapping[str, str]) -> str:
    from trims.config import default_store  # `trims exec` always names one

    return default_store(environ)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        return 60.0
    return seconds if seconds >= 0 else 60.0
