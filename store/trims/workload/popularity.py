"""What a stream of requests is like, before any machine serves it: popularity, reuse, and what LRU could make of it.

Reuse distance of a request (Mattson, Gecsei, Slutz, Traiger 1970): the bytes of the different models asked for since
the last request of the same model, with its own. LRU of budget B holds always the most recently used models that fit,
so a request is a hit exactly when its distance is at most B: one pass gives the hit rate of every budget. Sizes differ
here and it stays exact: a model leaves when those used since, with the one coming in, exceed B, and that sum only grows
until it is asked for again. A model larger than B is refused and disturbs nobody: its requests are left out.

This is LRU of the textbook, one request at a time. trims' planner also spares a victim that a later, larger one makes
needless, so with unequal sizes its hit rate may lie a little beside the curve; with equal sizes they agree exactly.

Distances by counting, in O(n log n): with prev[j] the last request before j of the same model (-1: none), a request k
of a window (prev[j], j) is the first of its model there iff prev[k] <= prev[j]. As prev[k] < k, that is

    distance[j] = size[j] + sum of size[k] over k < j with prev[k] <= prev[j]  -  sum of size[k] over k <= prev[j].

The first sum is a merge sort of positions by prev that adds up, level by level, what lies in the left half of each
block before an element of the right one; a level is a few vector operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trims.workload.models import sizes
from trims.workload.plan import Stream

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST = -1


@dataclass(frozen=True, slots=True)
class Popularity:
    """Figures of a stream.

    models: in play; unique: asked for at least once. bytes_asked: of all requests; working_set: of the unique models.
    top_share, tenth_share: of the requests, that ask for the most popular model, and for the most popular tenth of the
    models in play. zipf: exponent of the Zipf law nearest to it (NaN below two models). reuse_p50: median reuse
    distance in bytes, NaN where nothing is asked for twice.
    """

    requests: int
    models: int
    unique: int
    bytes_asked: int
    working_set: int
    top_share: float
    tenth_share: float
    zipf: float
    reuse_p50: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; figures that do not exist are null."""
        return {key: None if value != value else value for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class LruCurve:
    """Of each budget (int64[m], bytes): hit rate and byte hit rate (float64[m]) over all requests, bytes loaded."""

    budgets: Ints
    hit_rate: Floats
    byte_hit_rate: Floats
    bytes_loaded: Ints


def describe(stream: Stream) -> Popularity:
    """The figures of a stream."""
    counts = np.sort(stream.counts())[::-1]
    distances = reuse_distances(stream)
    again = distances[distances != FIRST]
    return Popularity(
        requests=len(stream),
        models=len(stream.models),
        unique=int(np.count_nonzero(counts)),
        bytes_asked=stream.bytes_asked(),
        working_set=stream.working_set(),
        top_share=top_share(stream, 1),
        tenth_share=top_share(stream, math.ceil(len(stream.models) / 10)),
        zipf=zipf_exponent(counts),
        reuse_p50=float(np.median(again)) if len(again) else math.nan,
    )


def top_share(stream: Stream, k: int) -> float:
    """Share of all requests that ask for the k most popular models; NaN for an empty stream."""
    counts = np.sort(stream.counts())[::-1]
    return float(counts[:k].sum() / len(stream)) if len(stream) else math.nan


def zipf_exponent(counts: npt.NDArray[np.int64]) -> float:
    """The s >= 0 under which these counts are most likely, shares by rank being proportional to i^-s.

    counts: int[n], any order. The likelihood is greatest where the expected ln(rank) is the observed one; the expected
    falls in s, so bisection finds it. Between 0 and 64; NaN for fewer than two models or no request.
    """
    ordered = np.sort(np.asarray(counts, dtype=np.float64))[::-1]
    if len(ordered) < 2 or not ordered.sum():
        return math.nan
    logs = np.log(np.arange(1, len(ordered) + 1))
    observed = float(ordered @ logs / ordered.sum())
    low, high = 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        weights = np.exp(-middle * logs)
        if weights @ logs / weights.sum() > observed:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def reuse_distances(stream: Stream) -> Ints:
    """Reuse distance of each request in bytes, int64[n]; FIRST (-1) where the model was never asked for before."""
    return _distances(stream.model, sizes(stream.models)[stream.model])


def lru_curve(stream: Stream, budgets: Sequence[int] | npt.NDArray[np.int64]) -> LruCurve:
    """What LRU makes of the stream with each of `budgets` bytes (int[m]), served one request at a time."""
    asked = np.asarray(budgets, dtype=np.int64)
    nbytes = sizes(stream.models)[stream.model]
    hits, hit_bytes = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=np.int64)
    loaded = np.zeros(len(asked), dtype=np.int64)
    # Budgets that refuse the same models share one pass; those that refuse none are one group.
    present = np.unique(nbytes)
    admitted = np.searchsorted(present, asked, side="right")
    for group in np.unique(admitted):
        which = np.flatnonzero(admitted == group)
        fits = nbytes <= asked[which[0]]
        distances, own = _distances(stream.model[fits], nbytes[fits]), nbytes[fits]
        order = np.argsort(distances, kind="stable")
        ends = np.searchsorted(distances[order], asked[which], side="right")
        never = int(np.count_nonzero(distances == FIRST))
        summed = np.concatenate(([0], np.cumsum(own[order])))
        hits[which] = ends - never
        hit_bytes[which] = summed[ends] - summed[never]
        loaded[which] = int(own.sum()) - hit_bytes[which]
    total = max(1, int(nbytes.sum()))
    return LruCurve(asked, hits / max(1, len(stream)), hit_bytes / total, loaded)


def _distances(model: npt.NDArray[np.int32], nbytes: Ints) -> Ints:
    n = len(model)
    before = _previous(model)
    again = before >= 0
    through = np.concatenate(([0], np.cumsum(nbytes)))
    distances = nbytes + _smaller_before(before, nbytes) - through[np.where(again, before, 0) + 1]
    return np.where(again, distances, FIRST) if n else np.zeros(0, dtype=np.int64)


def _previous(model: npt.NDArray[np.int32]) -> Ints:
    """Position of the last request of the same model before each, -1 where there is none; int64[n]."""
    order = np.argsort(model, kind="stable")
    before = np.full(len(model), -1, dtype=np.int64)
    same = model[order][1:] == model[order][:-1]
    before[order[1:][same]] = order[:-1][same]
    return before


def _smaller_before(keys: Ints, weights: Ints) -> Ints:
    """sum of weights[k] over k < j with keys[k] <= keys[j], int64[n]; exact for keys[j] that no later k < j repeats.

    `order` starts as all positions in order of key. At each level it is grouped into blocks of 2 w positions, within a
    block in order of key; what precedes an element of a right half there and lies in the left half of the same block is
    what this level adds to it. Then each block is split into its halves, which keeps the order of keys.
    """
    n = len(keys)
    found = np.zeros(n, dtype=np.int64)
    order = np.argsort(keys, kind="stable")
    place = np.arange(n)
    width = 1 << max(0, (n - 1).bit_length() - 1) if n > 1 else 0
    while width:
        block = order // (2 * width) * (2 * width)  # where the block of each element begins
        right = (order & width) != 0
        left_before = np.concatenate(([0], np.cumsum(~right)))
        left_weight = np.concatenate(([0], np.cumsum(np.where(right, 0, weights[order]))))
        found[order[right]] += (left_weight[:-1] - left_weight[block])[right]
        rank = left_before[:-1] - left_before[block]
        target = np.where(right, block + width + (place - block - rank), block + rank)
        split = np.empty_like(order)
        split[target] = order
        order, width = split, width // 2
    return found
