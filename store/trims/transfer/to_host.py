"""Filling host regions: threads read pieces to where they belong, the table goes behind them, the seal ends it."""

from __future__ import annotations

from collections.abc import Callable

from trims.devices.base import Region
from trims.disk.reader import fill
from trims.transfer.base import Progress, Source

_SMALL = 8 << 20
"""Bytes below which one reading thread is as fast as two."""


class HostFiller:
    """Fills by reading the container: what another place holds would come no sooner."""

    def fill(self, region: Region, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> int:
        span, table = source.span, source.table
        fill(
            source.container,
            source.sidecar,
            region.buffer,
            threads=1 if span < _SMALL else 2,
            prepare=region.prepare,
            progress=progress,
            cancelled=cancelled,
        )
        region.prepare(span, len(table))
        region.buffer[span : span + len(table)] = table
        region.seal()
        return 0

    def forget(self, region: Region) -> None:
        """Nothing is kept of any."""

    def close(self) -> None:
        """There is nothing besides."""
