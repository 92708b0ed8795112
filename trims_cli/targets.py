"""Several targets of one command: all are tried, each failure has its own line, and the exit code says how it went.

One failure of one target is that failure. Of several targets, if all failed in the same way the code is that of the
failure, otherwise it is 5.
"""

from __future__ import annotations

from trims.errors import PartialFailure, TrimsError
from trims_cli import boundary

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    T = TypeVar("T")


def each(targets: Iterable[T], action: Callable[[T], Any]) -> tuple[list[Any], list[TrimsError]]:
    """(results of those that went well, errors of the others), in order."""
    results, errors = [], []
    for target in targets:
        try:
            results.append(action(target))
        except TrimsError as error:
            errors.append(error)
    return results, errors


def conclude(errors: list[TrimsError], tried: int) -> int:
    """After the results are printed: report the failures. Raises the one that decides the exit code."""
    if not errors:
        return 0
    if tried == 1:
        raise errors[0]
    for error in errors:
        boundary.say(f"trims: {error}")
    failures = [error.to_dict() for error in errors]
    codes = {error.exit_code for error in errors}
    if len(errors) == tried and len(codes) == 1:
        raise type(errors[0])(f"all {tried} failed", "", "", failures=failures)
    raise PartialFailure(f"{len(errors)} of {tried} failed", "", "", failures=failures)
