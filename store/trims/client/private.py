"""Tensors that may be written to: each name its own memory, copy-on-write.

A region holds equal tensors once, be they tied or only equal: two biases that are all zero lie in one place. Whoever
only reads does not notice. Written to, they must not be the same memory, so of equal ones the first that is asked for
lies on the map that all share; another one gets a map of its part alone, or a copy where that is cheaper.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from trims.client.mapping import Region

Place = tuple["np.ndarray[Any, Any]", int]
"""(bytes, where in them a tensor begins)."""

_SMALL = 64 << 10  # bytes up to which a copy costs less than a map, of which a process has 65,530
_ALIGNED = 64  # as frameworks align their own


class Private:
    """The tensors of one region on copy-on-write maps. keep: what these maps are to hold, beside the region.

    What one `Private` gave, no other one sees written, nor any other process.
    """

    __slots__ = ("_base", "_first", "_keep", "_others", "_region", "views")

    def __init__(self, region: Region, keep: object = None) -> None:
        self._region, self._keep = region, keep
        self._base = region.private_base(keep)
        self._first: dict[int, str] = {}
        self._others: dict[str, Place] = {}
        self.views = region.contents.views

    def place(self, name: str) -> Place:
        """Where the bytes of the tensor `name` are, the same place each time. Raises KeyError."""
        shape, dtype, offset = self.views[name]
        nbytes = prod(shape) * dtype.itemsize
        if not nbytes or self._first.setdefault(offset, name) == name:
            return self._base, offset
        known = self._others.get(name)
        return known if known is not None else self._others.setdefault(name, (self._another(offset, nbytes), 0))

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """The tensor `name`, writable. Raises KeyError."""
        shape, dtype, _ = self.views[name]
        base, offset = self.place(name)
        return np.ndarray(shape, dtype, base, offset)

    def _another(self, offset: int, nbytes: int) -> np.ndarray[Any, Any]:
        """The bytes there once more."""
        if nbytes > _SMALL:
            return self._region.private_base(self._keep, offset, nbytes)
        room = np.empty(nbytes + _ALIGNED, np.uint8)
        self._region.watch().count(room, nbytes)
        skip = -room.ctypes.data % _ALIGNED
        made = room[skip : skip + nbytes]
        made[:] = self._region.base[offset : offset + nbytes]
        return made
