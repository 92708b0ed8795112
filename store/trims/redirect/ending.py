"""The end of a process of a redirected program: the last line of the report, and the exit code where it is ours."""

from __future__ import annotations

import os
import sys

from trims.redirect import report, ticks
from trims.redirect.environment import wishes

FAILED = 125


def end() -> int:
    """The exit code that the process is to have instead of its own, or 0. Called last of all, once."""
    report.ended()
    last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if getattr(last, "code", None) == "not-redirected":
        return FAILED  # the traceback that was printed says why
    if wishes().main != os.getpid() or last is not None:
        return 0
    missing = ticks.missing()
    if not missing:
        return 0
    report.say(f"trims: nothing was redirected to {', '.join(missing)}, which --require asks for", "--require")
    return FAILED
