"""Filling regions of a GPU: the worker copies the span, this process keeps the tail on the host."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

from trims.devices.base import Region
from trims.devices.gpu import GpuRegion
from trims.devices.on_gpu import OnGpu
from trims.disk.parts import parts
from trims.disk.reader import read_blob
from trims.errors import Damaged, DeviceLost
from trims.linux import fdpass
from trims.places import gpu_of
from trims.transfer.base import Progress, Source
from trims.transfer.gpu_link import GpuLink
from trims.transfer.gpu_words import Work


class GpuFiller:
    """Fills by way of one GPU's worker: from where the model is already, else from the store."""

    def __init__(self, link: GpuLink) -> None:
        self.link = link
        self._copied: set[int] = set()  # inodes of the host regions that the worker may have mapped

    def fill(self, region: Region, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> int:
        assert isinstance(region, OnGpu)
        try:
            self._order(region, source, progress, cancelled)
        except (DeviceLost, Damaged):
            if not isinstance(source.region, OnGpu):
                raise
            # The other GPU may be what failed, or what it has may have been written to.
            self._order(region, replace(source, region=None), progress, cancelled)
        start = tail_of(source)
        region.keep_tail(tail(source, start))
        region.seal()
        return start

    def forget(self, region: Region) -> None:
        if not self._copied or isinstance(region, OnGpu):
            return
        inode = os.fstat(region.export()).st_ino
        if inode in self._copied:
            self._copied.discard(inode)
            self.link.drop(inode)

    def close(self) -> None:
        self.link.close()

    def _order(self, region: OnGpu, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> None:
        work, fds = self._work(region, source)
        self.link.work(work, [*region.fds, *fds], progress, cancelled)

    def _work(self, region: OnGpu, source: Source) -> tuple[Work, list[int]]:
        """The order, and the descriptors of what the region is filled from."""
        files, own = (list(region.slabs), source.container, source.sidecar_path), region.own
        there = source.region
        if isinstance(there, GpuRegion):
            if len(region.fds) + len(there.fds) > fdpass.MOST_FDS:  # more than go with one order
                return Work(*files, own=own), []
            return Work(*files, peer=gpu_of(there.place), peer_slabs=list(there.slabs), own=own), there.fds
        if there is not None:
            inode = os.fstat(there.export()).st_ino
            self._copied.add(inode)
            return Work(*files, host=(there.nbytes, inode), own=own), [there.export()]
        return Work(*files, own=own), []


def tail_of(source: Source) -> int:
    """Where in the span what is no tensor begins: the graph and the files, or its end."""
    layout = source.sidecar.manifest.layout
    blobs = [*([layout.graph] if layout.graph else []), *layout.files.values()]
    return min((offset for offset, _ in blobs), default=source.span)


def tail(source: Source, start: int) -> bytes:
    """The bytes of the region from `start` to the end of its table, verified. Raises Damaged, NoSuchModel."""
    data = bytearray(source.span - start)
    for part in parts(source.sidecar.manifest):
        if not part.dtype:
            at = part.offset - start
            data[at : at + part.nbytes] = read_blob(source.container, source.sidecar, part.name)
    return bytes(data) + source.table
