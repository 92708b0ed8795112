"""Whether what is resident still is what was imported: every part is hashed again and held to the model's digests.

The regions of the host are sealed, so nothing but failing memory can change them. Memory of a GPU is mapped read-only
by those who use it as they should, and can be written to by one who does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blake3 import blake3

from trims.client.attachment import AnyRegion
from trims.disk.parts import Part, parts

STRIDE = 64 << 20
"""Bytes that are copied out of a GPU at a time."""


def damaged(region: AnyRegion, progress: Callable[[int], None] = lambda _: None) -> list[str]:
    """The names of the parts whose bytes are not what they should be. progress: called with the bytes just hashed."""
    found = []
    for part in parts(region.contents.manifest):
        hasher = blake3()
        for data in _strides(region, part):
            hasher.update(data)
            progress(len(data))
        if hasher.hexdigest() != part.digest:
            found.append(part.name)
    return found


def _strides(region: AnyRegion, part: Part) -> Iterator[bytes | memoryview]:
    if not region.on_gpu:
        yield region.base[part.offset : part.offset + part.nbytes].data
        return
    for at in range(0, part.nbytes, STRIDE):
        yield region.blob((part.offset + at, min(STRIDE, part.nbytes - at)))
