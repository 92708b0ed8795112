"""What trims asks of the CUDA driver, and nothing else of it: one small interface with two implementations.

`trims.devices.cuda` is the real driver, `trims.devices.simulated` keeps the same contract in plain memory, across
processes, with failures on demand; tests/contract runs on both. Everything above this module is the same on either.

Addresses, handles, streams and events are plain integers. GPUs are named by ordinal *in this process's view*
(CUDA_VISIBLE_DEVICES) here, and by UUID everywhere else. Calls raise NoRoom when the GPU has no memory, DeviceLost for
everything else that fails, and leave nothing behind when they do.

The calls of the first group need no context, so a process that makes only those has no memory of its own on any GPU
and cannot be hurt by a fault there. A context is opened for one GPU at a time, by name, never by chance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple


class Gpu(NamedTuple):
    """One GPU, or MIG slice, that this process sees.

    ordinal: its number in this process. uuid: `GPU-...` or `MIG-...`. nbytes: all its memory. granularity: bytes that
    sizes and addresses of allocations are multiples of. shares: whether its allocations can be given to other
    processes as descriptors (POSIX handles of the virtual memory API). reads_registered: whether host memory that is
    mapped read-only can be registered for its copies.
    """

    ordinal: int
    uuid: str
    name: str
    nbytes: int
    granularity: int
    shares: bool
    reads_registered: bool


class Usage(NamedTuple):
    """Bytes of a GPU's memory as the management library measures them: all, and used by whomever."""

    total: int
    used: int


class Driver(ABC):
    """The driver of all GPUs that this process sees. Safe to use from several threads."""

    simulated: bool = False
    """Whether the GPUs are not there: then nothing measured on them says anything about real ones."""

    # ---- without a context

    @abstractmethod
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs in this process's view, by ordinal. Empty when there are none."""

    @abstractmethod
    def usage(self, uuid: str) -> Usage:
        """What the GPU's memory is used for now, by all processes. May take milliseconds."""

    @abstractmethod
    def notes(self, uuid: str) -> tuple[str, ...]:
        """What an operator should know of this GPU, a line each: MIG, MPS, a mode that lets one process in only."""

    @abstractmethod
    def create(self, ordinal: int, nbytes: int) -> int:
        """A handle of new memory on a GPU; nbytes: whole units of its granularity. Content is undefined."""

    @abstractmethod
    def export(self, handle: int) -> int:
        """A new descriptor of the memory behind a handle, close-on-exec, the caller's to close.

        It carries no rights: whoever imports it chooses their access. The memory lives as long as a handle, mapping or
        descriptor of it, in any process.
        """

    @abstractmethod
    def import_(self, fd: int) -> int:
        """A handle, of this process, of the memory behind a descriptor, which stays the caller's."""

    @abstractmethod
    def release(self, handle: int) -> None:
        """Give a handle up; mappings of it stay."""

    # ---- addresses

    @abstractmethod
    def reserve(self, nbytes: int) -> int:
        """An address before `nbytes` of which nothing else is, and nothing yet."""

    @abstractmethod
    def map(self, address: int, nbytes: int, handle: int) -> None:
        """Make the whole memory behind a handle appear at an address that is reserved. Nobody has access to it yet."""

    @abstractmethod
    def allow(self, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        """Let a GPU read what is mapped there, or read and write it."""

    @abstractmethod
    def access(self, address: int, ordinal: int) -> str:
        """What a GPU may do with what is mapped at an address: "", "read" or "write"."""

    @abstractmethod
    def unmap(self, address: int, nbytes: int) -> None:
        """Undo `map` of everything in a range, whole mappings."""

    @abstractmethod
    def free(self, address: int, nbytes: int) -> None:
        """Undo `reserve`."""

    # ---- with a context

    @abstractmethod
    def open(self, ordinal: int) -> None:
        """Hold the GPU's primary context, which frameworks use too; made if it is not there. Calls are counted."""

    @abstractmethod
    def close(self, ordinal: int) -> None:
        """Undo one `open`. The context's memory comes back with the last holder, or the process."""

    @abstractmethod
    def synchronize(self, ordinal: int) -> None:
        """Wait for all work of this process on an open GPU."""

    @abstractmethod
    def pin(self, ordinal: int, nbytes: int) -> int:
        """The address of new page-locked host memory that an open GPU copies from at full speed."""

    @abstractmethod
    def unpin(self, ordinal: int, address: int) -> None:
        """Undo `pin`."""

    @abstractmethod
    def register(self, ordinal: int, address: int, nbytes: int) -> None:
        """Page-lock host memory that is mapped already, maybe read-only, for copies to an open GPU. It takes time."""

    @abstractmethod
    def unregister(self, ordinal: int, address: int) -> None:
        """Undo `register`."""

    @abstractmethod
    def stream(self, ordinal: int) -> int:
        """A new stream: copies on it are made in order."""

    @abstractmethod
    def end_stream(self, ordinal: int, stream: int) -> None:
        """Undo `stream`, when what is on it is done."""

    @abstractmethod
    def copy_in(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        """Begin to copy host memory to a GPU; the source is the copy's until somebody has waited for the stream.

        From memory that is not page-locked it may block.
        """

    @abstractmethod
    def copy_out(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        """Begin to copy memory of a GPU to the host."""

    @abstractmethod
    def copy_across(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        """Begin to copy memory of one GPU to another that `ordinal`, which is open, may both reach."""

    @abstractmethod
    def reaches(self, ordinal: int, other: int) -> bool:
        """Whether a GPU can reach another's memory directly."""

    @abstractmethod
    def wait(self, ordinal: int, stream: int) -> None:
        """Wait until everything on a stream is done. Raises DeviceLost when something of it failed."""

    # ---- legacy IPC: memory that a context of its maker owns, where the virtual memory API cannot be used

    @abstractmethod
    def allocate(self, ordinal: int, nbytes: int) -> int:
        """The address of new memory of an open GPU. It ends with this process's context on it, for everybody."""

    @abstractmethod
    def free_allocation(self, ordinal: int, address: int) -> None:
        """Undo `allocate`. What others have opened of it is undefined from then on."""

    @abstractmethod
    def ipc_handle(self, ordinal: int, address: int) -> bytes:
        """The 64 bytes by which other processes open what `allocate` gave. They end with it."""

    @abstractmethod
    def ipc_open(self, ordinal: int, handle: bytes) -> int:
        """The address here, on an open GPU, of memory that a living process allocated on it; read-write, always.

        Not in the process that allocated it. Opened again it is the same address; openings are counted.
        """

    @abstractmethod
    def ipc_close(self, ordinal: int, address: int) -> None:
        """Undo one `ipc_open`."""
