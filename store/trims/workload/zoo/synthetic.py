"""A safetensors file with a model's number of tensors and exact total, for models whose graph is not at hand.

The profile is that of a convolutional network: one weight to each bias (up to 60 tensors) or to each four vectors of a
normalisation (above), channels doubling from 64 to 2048 with depth, a weight's size about channels squared, and in the
old networks without normalisation one full layer that outweighs the rest, as in AlexNet and VGG. Sizes follow from the
model's name and the seed; values are `noise`. The metadata say that the file is synthetic.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np

from trims.workload.zoo.noise import Noise
from trims.workload.zoo.output import Output

_OLD = 60  # tensors: every network of the table with fewer has a bias to each weight and no normalisation
_COLUMNS = 512  # of weights that are large enough to be matrices
_SMALL_SHARE = 0.05  # at most this share of the bytes is in vectors: about what ResNets have
_VECTORS = ("gamma", "beta", "mean", "variance")

Shape = tuple[int, ...]
Named = tuple[str, Shape]


def profile(name: str, tensors: int, nbytes: int, seed: int) -> list[Named]:
    """Names and shapes of exactly `tensors` float32 tensors of together exactly `nbytes` bytes (a multiple of 4, at
    least 8 a tensor), in the order of the layers."""
    kinds = ("bias",) if tensors <= _OLD else _VECTORS
    period = 1 + len(kinds)
    noise = np.random.default_rng([seed, len(name), *name.encode()])
    layers = -(-tensors // period)
    channels = [64 << round(5 * at / max(1, layers - 1)) for at in range(layers)]
    small = [channels[at // period] for at in range(tensors) if at % period]
    small = _shrink(small, int(nbytes // 4 * _SMALL_SHARE))
    wanted = [float(c * c * noise.lognormal(0.0, 0.6)) for c in channels]
    if tensors <= _OLD:
        wanted[-min(3, layers)] += 2.5 * sum(wanted)  # the first full layer: 72 % of VGG16
    large, rest = _apportion(nbytes // 4 - sum(small), wanted)
    if small:
        small[-1] += rest
    else:
        large[-1] += rest
    weights, vectors = iter(large), iter(small)
    return [
        _named(at // period, "weight", next(weights))
        if at % period == 0
        else (f"layer{at // period:03d}.{kinds[at % period - 1]}", (next(vectors),))
        for at in range(tensors)
    ]


def _shrink(counts: list[int], most: int) -> list[int]:
    """`counts`, brought down in proportion to a sum of about `most`, none below 1."""
    ratio = min(1.0, most / max(1, sum(counts)))
    return [max(1, int(count * ratio)) for count in counts]


def _apportion(values: int, wanted: Sequence[float]) -> tuple[list[int], int]:
    """Whole sizes in proportion to `wanted`, large ones multiples of _COLUMNS, and what is left over: < _COLUMNS."""
    spare, scale = values - len(wanted), sum(wanted)
    sizes = [1 + int(spare * want / scale) for want in wanted]
    sizes = [size - size % _COLUMNS if size >= 8 * _COLUMNS else size for size in sizes]
    rest = values - sum(sizes)
    sizes[max(range(len(sizes)), key=sizes.__getitem__)] += rest - rest % _COLUMNS
    return sizes, rest % _COLUMNS


def _named(layer: int, kind: str, size: int) -> Named:
    shape = (size // _COLUMNS, _COLUMNS) if size % _COLUMNS == 0 and size >= 8 * _COLUMNS else (size,)
    return f"layer{layer:03d}.{kind}", shape


def header(tensors: Sequence[Named], metadata: dict[str, str]) -> bytes:
    """The head of a safetensors file of float32 tensors stored in this order, padded to eight bytes."""
    entries: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, shape in tensors:
        size = 4 * math.prod(shape)
        entries[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(out: Output, tensors: Sequence[Named], metadata: dict[str, str], noise: Noise) -> None:
    """Write the whole file. A vector's deviation is a tenth, a weight's keeps sums of products near 1."""
    out.write(header(tensors, metadata))
    for _, shape in tensors:
        for cut in noise.cuts(math.prod(shape), shape[-1] ** -0.5 if len(shape) > 1 else 0.1):
            out.write(cut.data)
