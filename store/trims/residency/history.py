"""What happened to each model lately, and why: for people who ask, and for the day something impossible happens.

A line is written when something is decided about a residency (it was loaded, given up, pinned, ...), never for a hit
or a release. The last LINES of each of the last MODELS models that had one are kept, and the last LATEST of all.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import NamedTuple

from trims.residency.events import Key, Who
from trims.residency.views import HistoryView

LINES = 24
MODELS = 1024
LATEST = 256


class Cause(NamedTuple):
    """Why something goes. by: who asked, "" for the manager's own rules. policy, rank, of: if it was chosen: by what,
    and as which of how many victims."""

    why: str
    by: str = ""
    policy: str = ""
    rank: int = 0
    of: int = 0

    def __str__(self) -> str:
        text = f"{self.why}, asked by {self.by}" if self.by else self.why
        if self.rank:
            text += f"; {self.policy}, {f'{self.rank} of {self.of}' if self.of > 1 else 'the only one'}"
        return text


def name_of(who: Who) -> str:
    """`pid 12`, for a cause."""
    return f"pid {who.pid}"


class History:
    """Lines by model, in order of time. A line is kept as the tuple that HistoryView is made of."""

    __slots__ = ("_latest", "_models")

    def __init__(self) -> None:
        self._models: OrderedDict[str, deque[tuple[object, ...]]] = OrderedDict()
        self._latest: deque[tuple[object, ...]] = deque(maxlen=LATEST)

    def tell(
        self, key: Key, ref: str, now: float, what: str, cause: Cause, nbytes: int = 0, seconds: float = 0.0
    ) -> None:
        """Write a line; what its fields mean is said by HistoryView."""
        digest, variant, place = key
        lines = self._models.get(digest)
        if lines is None:
            lines = self._models[digest] = deque(maxlen=LINES)
            if len(self._models) > MODELS:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(digest)
        line = (now, place, variant, what, *cause, ref, digest, nbytes, seconds)
        lines.append(line)
        self._latest.append(line)

    def of(self, digest: str = "") -> list[HistoryView]:
        """The lines of one model, or with "" the latest of all, oldest first."""
        lines = self._models.get(digest, ()) if digest else self._latest
        return [HistoryView(*line) for line in lines]  # type: ignore[arg-type]
