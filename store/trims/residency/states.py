"""The life of a residency, as a table; and the story of each key, for the day something impossible happens.

absent → loading → resident → doomed → absent. A pair that the table lacks is a bug of the manager and raises
InvalidTransition with what the key went through lately. docs/residency.md shows the same table to people.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from trims.residency.events import Key

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
    (RESIDENT, "given up"): DOOMED,  # evicted, expired, forgotten
    (DOOMED, "loaded"): DOOMED,  # faster than its cancellation: to be freed
    (DOOMED, "failed"): ABSENT,
    (DOOMED, "freed"): ABSENT,
}

STORY_LINES = 24
STORY_KEYS = 1024


class InvalidTransition(Exception):
    """The machine was told something that cannot be: a bug, never a user's doing."""


class Stories:
    """The last lines of the story of each of the last keys that had one. Bounded both ways."""

    __slots__ = ("_stories",)

    def __init__(self) -> None:
        self._stories: OrderedDict[Key, deque[str]] = OrderedDict()

    def tell(self, key: Key, now: float, line: str) -> None:
        story = self._stories.get(key)
        if story is None:
            story = self._stories[key] = deque(maxlen=STORY_LINES)
            if len(self._stories) > STORY_KEYS:
                self._stories.popitem(last=False)
        else:
            self._stories.move_to_end(key)
        story.append(f"{now:.3f} {line}")

    def of(self, key: Key) -> list[str]:
        return list(self._stories.get(key, ()))

    def impossible(self, key: Key, state: str, what: str) -> InvalidTransition:
        """The exception to raise, with the key's story."""
        story = "; ".join(self.of(key)) or "no story"
        return InvalidTransition(f"{what!r} while {state} is impossible for {key}: {story}")


def next_state(state: str, what: str) -> str | None:
    """Where `what` leads from `state`, or None when it cannot happen there."""
    return TABLE.get((state, what))
