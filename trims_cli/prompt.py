"""Questions to a person: only at a terminal, with No as the answer of an empty line."""

from __future__ import annotations

import sys

from trims.errors import TrimsError, UsageError, one_line
from trims_cli.settings import Settings


class Declined(TrimsError):
    """The person said no."""

    code = "declined"
    exit_code = 1


def confirm(settings: Settings, question: str) -> None:
    """Go on, or raise: Declined after a no, UsageError naming the flag when nobody can be asked."""
    if settings.yes:
        return
    if not settings.may_ask:
        raise UsageError("this needs a yes", f"nobody can be asked: {question}", "say it with --yes")
    sys.stderr.write(one_line(question) + " [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Declined("nothing was done", "the answer was no")
