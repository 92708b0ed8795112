"""Direct mode: a model's container mapped read-only from the store's file, shared with others by the page cache.

No manager is involved. The container is verified once and stamped by `trims.disk.direct`, and locked shared while
anything of it is mapped, so that no collector takes it away. A compressed container cannot be mapped: it is
decompressed into memory of this process alone, sealed like a manager's region, and a warning says what that costs.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Callable

from trims.client.attachment import DIRECT, RAW, Attachment, DirectModeWarning
from trims.client.mapping import Contents, Hold, Region, contents
from trims.disk.catalog import Catalog, Entry
from trims.disk.direct import OpenContainer, open_container
from trims.disk.reader import fill
from trims.disk.store import Store
from trims.linux import memfd
from trims.places import DISK
from trims.units import format_size

__all__ = ["DirectBackend", "DirectModeWarning", "filled"]


class DirectBackend:
    """One model of the store, by its files."""

    __slots__ = ("entry", "store")

    def __init__(self, store: Store, text: str) -> None:
        """`text` is a canonical ref, or id:PREFIX. Raises NoSuchModel, AmbiguousModel."""
        self.store = store
        self.entry: Entry = Catalog(store.paths).resolve(text)

    def attach(self, variant: str, prefer: str = "") -> Attachment:
        """Map one form; "auto" is `prefer` where the store has that, raw otherwise. Raises NoSuchVariant, Damaged."""
        digest = self.entry.digest
        if variant == "auto":
            has = prefer and os.path.exists(self.store.paths.variant_sidecar(digest, prefer))
            variant = prefer if has else RAW
        opened = open_container(self.store, self.entry, variant)
        made = contents(
            digest, variant, opened.sidecar.span_nbytes, lambda: Contents.of_manifest(opened.sidecar.manifest)
        )
        if opened.sidecar.frames is not None:
            region = self._decompressed(opened, variant, made)
        else:
            region = Region(Hold(opened.fd), opened.sidecar.span_offset, opened.sidecar.span_nbytes, made)
        return Attachment(digest, variant, DISK, region, DIRECT)

    def _decompressed(self, opened: OpenContainer, variant: str, made: Contents) -> Region:
        sidecar = opened.sidecar
        warnings.warn(
            f"{self.entry.ref} is compressed: without a manager this process decompresses it into "
            f"{format_size(sidecar.span_nbytes)} of its own memory (start one: `trims start`)",
            DirectModeWarning,
            stacklevel=5,
        )
        paths, digest = self.store.paths, self.entry.digest
        path = paths.container(digest) if variant == RAW else paths.variant(digest, variant)
        try:
            fd = filled(self.entry.ref, sidecar.span_nbytes, lambda buffer: fill(path, sidecar, buffer))
        finally:
            os.close(opened.fd)
        return Region(Hold(fd), 0, sidecar.span_nbytes, made, own=True)


def filled(name: str, nbytes: int, fill_buffer: Callable[[memoryview], None]) -> int:
    """A read-only descriptor of sealed memory of this process, after `fill_buffer` has written its `nbytes`."""
    size = memfd.pages(nbytes)
    fd = memfd.create(name, size)
    try:
        memfd.reserve(fd, 0, size)
        with mmap.mmap(fd, size) as mapped, memoryview(mapped) as whole, whole[:nbytes] as buffer:
            fill_buffer(buffer)
        return memfd.seal(fd)
    finally:
        os.close(fd)
