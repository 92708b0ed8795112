"""The life of a residency, as a table.

absent → loading → resident → doomed → absent. A pair that the table lacks is a bug of the manager and raises
InvalidTransition with what the model went through lately. docs/residency.md shows the same table to people.
"""

from __future__ import annotations

ABSENT = "absent"
LOADING = "loading"
RESIDENT = "resident"
DOOMED = "doomed"

TABLE: dict[tuple[str, str], str] = {
    (ABSENT, "promised"): LOADING,  # room is planned; the Load goes out when the bytes are free
    (LOADING, "withdrawn"): ABSENT,  # before the Load went out: the room is gone, or nobody wants it any more
    (LOADING, "loaded"): RESIDENT,
    (LOADING, "failed"): ABSENT,
    (LOADING, "abandoned"): DOOMED,  # cancelled: nobody wants it any more
    (RESIDENT, "given up"): DOOMED,  # evicted, expired, forgotten, lost
    (DOOMED, "loaded"): DOOMED,  # faster than its cancellation: to be freed
    (DOOMED, "failed"): ABSENT,
    (DOOMED, "freed"): ABSENT,
}


class InvalidTransition(Exception):
    """The machine was told something that cannot be: a bug, never a user's doing."""


def next_state(state: str, what: str) -> str | None:
    """Where `what` leads from `state`, or None when it cannot happen there."""
    return TABLE.get((state, what))
