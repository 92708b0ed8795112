"""Float32 noise at memory speed: one seeded block of normal numbers, cut anew for every MiB that is asked for.

Each cut starts at a random place of the block and is multiplied by a random factor between 1/2 and 3/2, so no two cuts
hold the same bytes (nothing to deduplicate) and all values are finite; drawing each number would take ten times as long
as writing it. What comes out follows from the seed and the key alone, for one version of NumPy's PCG64 and ziggurat.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from trims.workload.zoo.unfilled import Weight

Floats = npt.NDArray[np.float32]
_BLOCK = 1 << 20  # values: 4 MiB stays in a cache of the second or third level
_CUT = 1 << 18  # values: 1 MiB, large enough that a call to write is nothing beside it


class Noise:
    """Noise for one model: `key` (its name) tells models of one seed apart."""

    def __init__(self, seed: int, key: str) -> None:
        self._block: Floats = np.random.default_rng(seed).standard_normal(_BLOCK, dtype=np.float32)
        self.rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
        self._cut: Floats = np.empty(_CUT, np.float32)

    def cuts(self, count: int, deviation: float = 1.0) -> Iterator[Floats]:
        """`count` values of about that standard deviation, in pieces that are valid until the next one is asked for."""
        while count:
            n = min(count, _CUT)
            start, factor = int(self.rng.integers(0, _BLOCK - n)), deviation * self.rng.uniform(0.5, 1.5)
            yield np.multiply(self._block[start : start + n], np.float32(factor), out=self._cut[:n])
            count -= n

    def normal(self, shape: tuple[int, ...], deviation: float = 1.0) -> Floats:
        """A tensor of values around 0 with about that standard deviation."""
        flat: Floats = np.empty(int(np.prod(shape, dtype=np.int64)), np.float32)
        at = 0
        for cut in self.cuts(flat.size, deviation):
            flat[at : at + cut.size] = cut
            at += cut.size
        return flat.reshape(shape)

    def draw(self, weight: Weight) -> Iterator[Floats]:
        """The values of `weight`, in pieces that are valid until the next one is asked for."""
        if weight.high > weight.low:
            yield self.between(weight.shape, weight.low, weight.high)
        else:
            yield from self.cuts(math.prod(weight.shape), weight.deviation)

    def between(self, shape: tuple[int, ...], low: float, high: float) -> Floats:
        """A tensor of values drawn evenly from [low, high): scales and variances, which must be positive."""
        drawn: npt.NDArray[Any] = self.rng.uniform(low, high, shape)
        return drawn.astype(np.float32)

    def weight(self, shape: tuple[int, ...]) -> Floats:
        """A weight of a layer with ReLU behind it; see `deviation_of`."""
        return self.normal(shape, deviation_of(shape))


def deviation_of(shape: tuple[int, ...]) -> float:
    """The deviation that keeps a ReLU network's activations at one size (He et al. 2015): variance 2 / fan-in.

    The fan-in is the product of all axes but the first, as convolutions and Gemm with transB have it.
    """
    return float((2.0 / max(1, math.prod(shape[1:]))) ** 0.5)
