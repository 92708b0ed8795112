"""The physical limits of a stream on a budget: what no policy can pass, and what one that knew the future would reach.

Bound (PFOO-L: Berger, Beckmann, Harchol-Balter, "Practical Bounds on Optimal Caching with Variable Object Sizes",
SIGMETRICS 2018). A request of a model is a hit only if the model stayed from its last request on, so the pair occupies
size x length of the budget x time that there is, length being counted in requests. Dropping the rule that the budget
holds at every moment, and keeping it in total, only helps: the most hits are then had by taking pairs in order of what
a hit costs, size x length, until budget x (n - 1) is spent; the most bytes by taking them in order of length. The last
one may be taken in part. So for requests served one after another no policy that loads nothing before it is asked for
has more hits, nor more hit bytes. O(n log n), a few vector operations.

Schedule: evict what is used again farthest in the future (Belady 1966), of equal ones the larger; as trims must, it
loads what is asked for whatever that displaces, and then spares what a later, larger victim made needless. With equal
sizes it is the optimum (MIN; Mattson et al. 1970), with others it is a good one that can be had: the truth lies between
it and the bound. O(n log n) by a heap that drops stale entries.

A model larger than the budget can never be resident: each of its requests is a miss and disturbs nobody.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trims.workload.models import sizes
from trims.workload.plan import Stream

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a stream and a budget: rates over all requests and all bytes asked for.

    hit_rate, byte_hit_rate: no policy passes them (each by itself). bytes_loaded: the least that must be loaded.
    offline_*: the same of the schedule that knows the future.
    """

    hit_rate: float
    byte_hit_rate: float
    bytes_loaded: int
    offline_hit_rate: float
    offline_byte_hit_rate: float
    offline_bytes_loaded: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; rates of an empty stream are null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


def limits(stream: Stream, budget: int) -> Limits:
    """Both limits of `stream` on `budget` bytes."""
    hits, hit_bytes = bound(stream, budget)
    served = schedule(stream, budget)
    nbytes = sizes(stream.models)[stream.model]
    total, n = int(nbytes.sum()), len(stream)
    reached = int(nbytes[served].sum())
    return Limits(
        hits / n if n else math.nan,
        hit_bytes / total if total else math.nan,
        total - hit_bytes,
        int(served.sum()) / n if n else math.nan,
        reached / total if total else math.nan,
        total - reached,
    )


def bound(stream: Stream, budget: int) -> tuple[int, int]:
    """(most hits, most hit bytes) of any policy on `budget` bytes, each by itself."""
    again = following(stream)
    begins = np.flatnonzero(again < len(stream))
    nbytes = sizes(stream.models)[stream.model[begins]]
    length = again[begins] - begins
    fits = nbytes <= budget
    nbytes, length = nbytes[fits], length[fits]
    room = float(budget) * max(0, len(stream) - 1)
    area = nbytes.astype(np.float64) * length
    hits = _greedy(np.ones(len(area)), area, np.argsort(area, kind="stable"), room)
    hit_bytes = _greedy(nbytes.astype(np.float64), area, np.argsort(length, kind="stable"), room)
    return hits, min(hit_bytes, int(nbytes.sum()))


def _greedy(gain: npt.NDArray[np.float64], cost: npt.NDArray[np.float64], order: Ints, room: float) -> int:
    """The most gain for `room`, taking in `order` (by cost for a gain) and the last in part; rounded down.

    Sums are of extended precision, and the last digits are given to the bound: rounding must not make it too low.
    """
    spent = np.cumsum(cost[order], dtype=np.longdouble)
    gained = np.cumsum(gain[order], dtype=np.longdouble)
    whole = int(np.searchsorted(spent, room * (1 + 1e-12), side="right"))
    total = gained[whole - 1] if whole else np.longdouble(0)
    if whole < len(order):
        left = room - (spent[whole - 1] if whole else 0)
        total = total + gain[order[whole]] * max(0.0, left) / cost[order[whole]]
    return int(np.floor(total * (1 + 1e-12) + 1e-9))


def following(stream: Stream) -> Ints:
    """Position of the next request of the same model, int64[n]; n where there is none."""
    order = np.argsort(stream.model, kind="stable")
    after = np.full(len(stream), len(stream), dtype=np.int64)
    same = stream.model[order][1:] == stream.model[order][:-1]
    after[order[:-1][same]] = order[1:][same]
    return after


def schedule(stream: Stream, budget: int) -> npt.NDArray[np.bool_]:
    """Which requests are hits when what is used farthest in the future is evicted, bool[n]."""
    nbytes = [model.nbytes for model in stream.models]
    uses = following(stream).tolist()
    hits = np.zeros(len(stream), dtype=bool)
    resident: dict[int, int] = {}  # model -> its next use
    heap: list[tuple[int, int, int]] = []  # (-next use, -bytes, model)
    free = budget
    for now, (model, use) in enumerate(zip(stream.model.tolist(), uses, strict=True)):
        size = nbytes[model]
        if size > budget:
            continue
        if model in resident:
            hits[now] = True
        else:
            free -= size
            if free < 0:
                free += _make_room(-free, nbytes, resident, heap)
        resident[model] = use
        heapq.heappush(heap, (-use, -size, model))
    return hits


def _make_room(short: int, nbytes: list[int], resident: dict[int, int], heap: list[tuple[int, int, int]]) -> int:
    """Evict at least `short` bytes, farthest next use first; gives the bytes that are free then."""
    chosen: list[tuple[int, int, int]] = []
    gained = 0
    while gained < short:
        entry = heapq.heappop(heap)
        if resident.get(entry[2]) == -entry[0]:
            chosen.append(entry)
            gained += nbytes[entry[2]]
    for entry in reversed(chosen):
        if gained - nbytes[entry[2]] >= short:
            gained -= nbytes[entry[2]]
            heapq.heappush(heap, entry)
        else:
            del resident[entry[2]]
    return gained
