"""How a region on a GPU is cut: into slabs, each one allocation with a descriptor of its own.

Few and large, because an attach costs a few calls a slab (kvcached measured 1.45 us to map and 36 us to give access on
an A100) and because descriptors are few; none above 2 GiB, so that fragmented memory can still hold a large model.
"""

from __future__ import annotations

SLAB = 2 << 30
"""Bytes of a slab at most; a multiple of every granularity that drivers have (2 MiB today)."""


def padded(nbytes: int, granularity: int) -> int:
    """`nbytes` rounded up to whole units of `granularity` bytes, at least one."""
    return max(1, -(-nbytes // granularity)) * granularity


def cut(nbytes: int, granularity: int, slab: int = SLAB) -> tuple[int, ...]:
    """The sizes of the slabs that hold `nbytes`, in order: all but the last of `slab` bytes, each whole units."""
    left = padded(nbytes, granularity)
    sizes = []
    while left:
        sizes.append(min(left, padded(slab, granularity)))
        left -= sizes[-1]
    return tuple(sizes)
