"""Which models to verify now, when not all: pure. Those never verified come first, then those verified longest ago.

A part `3/7` is fixed by the digests: seven runs, 1/7 to 7/7, cover everything. A share (`5%`) or a size (`10GiB`) takes
from the front until so many bytes are reached, one model at least; repeated runs go round, since what was verified
goes to the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trims import units
from trims.disk.catalog import Entry
from trims.errors import UsageError


def choose(
    entries: Sequence[Entry], verified: Mapping[str, float], subset: str | None, max_age: float | None, now: float
) -> list[Entry]:
    """One entry a digest, in order. max_age: leave out what was verified within so many seconds. Raises UsageError."""
    distinct = list({entry.digest: entry for entry in reversed(entries)}.values())
    distinct.sort(key=lambda e: (verified.get(e.digest, 0.0), e.ref))
    due = [e for e in distinct if max_age is None or now - verified.get(e.digest, 0.0) > max_age]
    if subset is None:
        return due
    part, slash, parts = subset.partition("/")
    if slash:
        return _part(due, part, parts)
    return _front(due, units.parse_size(subset, sum(e.stored for e in distinct)))


def _part(entries: Sequence[Entry], part: str, parts: str) -> list[Entry]:
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"bad subset {part}/{parts}", "", "write it like 1/7, 5% or 10GiB")
    return [e for e in entries if int(e.digest[:12], 16) % int(parts) == int(part) - 1]


def _front(entries: Sequence[Entry], wanted: int) -> list[Entry]:
    chosen, total = list[Entry](), 0
    for entry in entries:
        if total >= wanted and chosen:
            break
        chosen.append(entry)
        total += entry.stored
    return chosen
