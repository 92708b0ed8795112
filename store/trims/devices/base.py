"""The interface of a place that holds regions: allocate, fill, seal, export, close.

A `Device` belongs to the manager's worker threads; its methods may be slow and may be called from several threads
at once, each on its own region. Host is the reference implementation; a GPU is another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from trims.linux import memfd


@dataclass(frozen=True, slots=True)
class DeviceStatistics:
    """Bytes in regions (sealed and being filled), bytes in spare pages, number of regions."""

    region_nbytes: int
    spare_nbytes: int
    regions: int


class Region(ABC):
    """One block of shareable memory. Filled through `buffer`, then sealed; read-only from then on, for everybody."""

    nbytes: int
    """What it takes in its place: whole pages."""

    slabs: tuple[int, ...] = ()
    """Of a region that is several pieces of memory, the bytes of each, in order."""

    ipc: tuple[str, ...] = ()
    """Where other processes open the slabs by handles of legacy CUDA IPC, that of each, hexadecimal."""

    @property
    def lost(self) -> bool:
        """Whether its memory went with a process that owned it: then it can only be closed."""
        return False

    @property
    @abstractmethod
    def buffer(self) -> memoryview:
        """The writable bytes, before `seal`. Raises RuntimeError afterwards."""

    def prepare(self, offset: int, nbytes: int) -> None:  # noqa: B027 - most places have nothing to prepare
        """Called before these bytes are filled, from any thread. Raises NoRoom when there is no memory for them."""

    @abstractmethod
    def seal(self) -> None:
        """End the filling. Nobody, the maker included, can change the bytes any more."""

    @abstractmethod
    def export(self) -> int:
        """The descriptor to send to a client: read-only, owned by the region (the caller does not close it)."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """All descriptors to send to a client, owned by the region; the first is that of `export`."""
        return (self.export(),)

    @abstractmethod
    def close(self) -> None:
        """Give the memory up. Idempotent. Clients keep what they have mapped, and its memory, until they end."""


class Device(ABC):
    """One place."""

    place: str

    outlived = True
    """Whether what clients have mapped stays as it is when the manager ends."""

    def takes(self, span: int, table: int) -> int:
        """Bytes that a region for a span and its table takes here."""
        return memfd.pages(span + table)

    @abstractmethod
    def allocate(self, name: str, nbytes: int) -> Region:
        """A region of at least `nbytes`. Raises NoRoom when the place has no memory, DeviceLost when it has gone.

        Its memory may come a part at a time, with `prepare`; that it is there is checked now.
        """

    @abstractmethod
    def set_spare(self, nbytes: int) -> int:
        """Keep about this many bytes of ready pages for the next loads, 0 for none; returns what is kept now."""

    @abstractmethod
    def statistics(self) -> DeviceStatistics: ...

    def used(self) -> int | None:
        """Bytes of the place that are in use, by whomever, as it measures them itself; None where it does not."""
        return None

    @abstractmethod
    def close(self) -> None:
        """Give all memory up, regions included."""
