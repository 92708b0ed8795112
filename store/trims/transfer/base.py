"""What fills a region, and what it is filled from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from trims.devices.base import Region
from trims.disk.sidecar import Sidecar

Progress = Callable[[int], None]
"""Called with the bytes in place so far, from any thread."""


@dataclass(frozen=True, slots=True)
class Source:
    """A form of a model: its files, its table, and a region in another place that holds it, if one does.

    The region stays where it is until the filling has ended: that is for the caller to see to.
    """

    container: str
    sidecar_path: str
    sidecar: Sidecar
    table: bytes
    region: Region | None = None

    @property
    def span(self) -> int:
        """Bytes of the span."""
        return self.sidecar.span_nbytes


class Filler(Protocol):
    """Fills the regions of one place. Called from any thread; may take as long as it takes."""

    def fill(self, region: Region, source: Source, progress: Progress, cancelled: Callable[[], bool]) -> int:
        """Fill and seal. Returns the offset from which on the region's bytes are in its first descriptor.

        Raises TrimsError (Damaged, Cancelled, NoRoom, DeviceLost, NoSuchModel) and OSError; the region is the caller's
        to close then.
        """

    def forget(self, region: Region) -> None:
        """A region of another place is about to be closed: keep nothing of it."""

    def close(self) -> None:
        """End what the filling needs besides. Whatever is being filled fails."""
