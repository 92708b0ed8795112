"""What the machine remembers, in the words of the protocol: its clock's times as times of day, its causes as one line.

An answer is bounded: MOST lines, each a few hundred bytes, are far below what a client takes at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from trims.residency.events import Key
from trims.residency.history import Cause
from trims.residency.machine import HistoryView

MOST = 1000
_LONGEST = 500
"""Characters of a reason: an error's text may hold paths of any length."""
_GIVEN_UP = ("evicted", "doomed", "expired")
_GOING = (*_GIVEN_UP, "freed")


def items(lines: Iterable[HistoryView], limit: int) -> list[dict[str, object]]:
    """The last `limit` lines as items of a result, oldest first; at most MOST."""
    offset = time.time() - time.monotonic()
    kept = list(lines)[-min(max(1, limit), MOST) :]
    return [
        {
            "time": line.time + offset,
            "place": line.place,
            "variant": line.variant,
            "what": line.what,
            "why": line.why[:_LONGEST],
            "by": line.by,
            "policy": line.policy,
            "rank": line.rank,
            "of": line.of,
            "ref": line.ref,
            "digest": line.digest,
            "nbytes": line.nbytes,
            "seconds": line.seconds,
        }
        for line in kept
    ]


def went(lines: Sequence[HistoryView], key: Key) -> str:
    """What the index says of a residency that went: `seconds ref reason`; "" when no line tells of its end."""
    line = _last(lines, key, _GOING)
    if line is None:
        return ""
    cause = Cause(line.why[:_LONGEST], line.by, line.policy, line.rank, line.of)
    return f"{line.time + time.time() - time.monotonic():.3f} {line.ref} {cause}"


def made_way(lines: Sequence[HistoryView], key: Key) -> bool:
    """Whether a residency that went gave way: to another, to time or to others' memory, and was not sent away."""
    line = _last(lines, key, _GIVEN_UP)
    return line is not None and (line.rank > 0 or not line.by)


def _last(lines: Sequence[HistoryView], key: Key, what: tuple[str, ...]) -> HistoryView | None:
    ends = (line for line in reversed(lines) if (line.variant, line.place) == key[1:] and line.what in what)
    return next(ends, None)
