"""The addresses of one process at which memory of simulated GPUs appears: reserved, mapped and given access to.

They are real: an address is one of the process itself, memory behind it a shared mapping of a file, and the access of
the GPUs that of the processor. So a write through a map that may only be read ends its process by SIGSEGV, and nobody
else's, as the same write ends the context of the process that makes it on a GPU.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from dataclasses import dataclass, field

from trims.errors import DeviceLost, NoRoom

PROT_NONE, MAP_FIXED, MAP_NORESERVE = 0, 0x10, 0x4000  # <asm-generic/mman.h>; not named by Python
_FAILED = ctypes.c_void_p(-1).value
_HINT = "this is a mistake of the caller's"

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_LIBC.mprotect.argtypes = _LIBC.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_LIBC.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


@dataclass(slots=True)
class Mapping:
    """`nbytes` of memory of the GPU `uuid`. access: the ordinals that may use it, True for those that may write."""

    nbytes: int
    uuid: str
    access: dict[int, bool] = field(default_factory=dict)


def refused(call: str, why: str) -> DeviceLost:
    """What a call with wrong arguments raises, as the real driver's CUDA_ERROR_INVALID_VALUE."""
    return DeviceLost(f"the simulated GPU driver refused {call}", why, _HINT)


def anonymous(nbytes: int, access: int = PROT_NONE, at: int = 0) -> int:
    """The address of new private memory; at: where it must be, instead of what is there."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | (MAP_FIXED if at else 0)
    return _mmap(at, nbytes, access, flags, -1)


def unmap(address: int, nbytes: int) -> None:
    _LIBC.munmap(address, nbytes)


def copy(to: int, source: int, nbytes: int) -> None:
    """memmove, while other threads of the interpreter run."""
    _LIBC.memmove(to, source, nbytes)


def is_mapped(address: int, nbytes: int, write: bool) -> bool:
    """Whether this process may read, or write too, all of a range of its memory."""
    end = address + nbytes
    with open("/proc/self/maps") as file:
        for line in file:
            span, access = line.split(None, 2)[:2]
            first, last = (int(part, 16) for part in span.split("-"))
            if first <= address < last and access.startswith("rw" if write else "r"):
                address = last
    return address >= end


def _mmap(address: int, nbytes: int, access: int, flags: int, fd: int) -> int:
    found = _LIBC.mmap(address, nbytes, access, flags, fd, 0)
    if found == _FAILED:
        raise NoRoom("no addresses for memory of a simulated GPU", os.strerror(ctypes.get_errno()))
    return int(found)


class Addresses:
    """Reservations and the mappings in them. Does not lock: its owner does."""

    def __init__(self, alignment: int) -> None:
        self._alignment = alignment
        self._reserved: dict[int, int] = {}
        self._mappings: dict[int, Mapping] = {}

    def reserve(self, nbytes: int) -> int:
        """An aligned address before `nbytes` that nothing can be read from or written to."""
        if nbytes <= 0 or nbytes % self._alignment:
            raise refused("reserve", f"{nbytes} bytes are not whole units of {self._alignment}")
        start = anonymous(nbytes + self._alignment)
        address = -(-start // self._alignment) * self._alignment
        for at, size in ((start, address - start), (address + nbytes, start + self._alignment - address)):
            if size:
                unmap(at, size)
        self._reserved[address] = nbytes
        return address

    def free(self, address: int, nbytes: int) -> None:
        if self._reserved.get(address) != nbytes:
            raise refused("free", "nothing of this size is reserved there")
        if any(address <= at < address + nbytes for at in self._mappings):
            raise refused("free", "memory is mapped there")
        del self._reserved[address]
        unmap(address, nbytes)

    def map(self, address: int, nbytes: int, fd: int, uuid: str) -> None:
        """Put a file's memory at reserved addresses, without access. It holds the file open; a fork has none."""
        if not any(at <= address and address + nbytes <= at + size for at, size in self._reserved.items()):
            raise refused("map", "the addresses are not reserved")
        if any(at < address + nbytes and address < at + m.nbytes for at, m in self._mappings.items()):
            raise refused("map", "memory is mapped there already")
        _mmap(address, nbytes, PROT_NONE, mmap.MAP_SHARED | MAP_FIXED, fd)
        _LIBC.madvise(address, nbytes, mmap.MADV_DONTFORK)
        self._mappings[address] = Mapping(nbytes, uuid)

    def allow(self, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        """Give access to whole mappings; the processor gets what any of the GPUs has."""
        for at, mapping in self.whole("allow", address, nbytes):
            mapping.access[ordinal] = write
            access = mmap.PROT_READ | (mmap.PROT_WRITE if any(mapping.access.values()) else 0)
            if _LIBC.mprotect(at, mapping.nbytes, access):
                raise NoRoom("no access to memory of a simulated GPU", os.strerror(ctypes.get_errno()))

    def access(self, address: int, ordinal: int) -> str:
        for at, mapping in self._mappings.items():
            if at <= address < at + mapping.nbytes:
                return {None: "", False: "read", True: "write"}[mapping.access.get(ordinal)]
        raise refused("access", "nothing is mapped at the address")

    def unmap(self, address: int, nbytes: int) -> None:
        for at, mapping in self.whole("unmap", address, nbytes):
            anonymous(mapping.nbytes, at=at)
            del self._mappings[at]

    def whole(self, call: str, address: int, nbytes: int) -> list[tuple[int, Mapping]]:
        """The mappings that are exactly a range, by address. Raises DeviceLost when it cuts one or has a gap."""
        found = [(at, m) for at, m in sorted(self._mappings.items()) if address <= at < address + nbytes]
        end = address
        for at, mapping in found:
            if at != end:
                break
            end += mapping.nbytes
        if not found or end != address + nbytes:
            raise refused(call, "the range is not that of whole mappings")
        return found

    def check(self, call: str, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        """Raise DeviceLost unless a GPU may read, or write, every byte of a range."""
        end = address + nbytes
        for at, mapping in sorted(self._mappings.items()):
            if not at <= address < at + mapping.nbytes or address >= end:
                continue
            may = mapping.access.get(ordinal)
            if may is None or (write and not may):
                raise DeviceLost(
                    f"the simulated GPU failed in {call}",
                    f"it may not {'write' if write else 'read'} memory at this address",
                    "a real one would report Xid 31 in the kernel's log",
                )
            address = at + mapping.nbytes
        if address < end:
            raise refused(call, "nothing is mapped at a part of the range")
