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
_GOING = ("evicted", "doomed", "freed", "expired")


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
    ends = (line for line in reversed(lines) if (line.variant, line.place) == key[1:] and line.what in _GOING)
    line = next(ends, None)
    if line is None:
        return ""
    cause = Cause(line.why[:_LONGEST], line.by, line.policy, line.rank, line.of)
    return f"{line.time + time.time() - time.monotonic():.3f} {line.ref} {cause}"
