"""Memory of simulated GPUs by legacy IPC, of one process: what it allocated, and what it has opened of others.

An allocation is a file that its maker alone holds (`trims.devices.simulated_gpus`): it ends with its maker, its context
or `free`. Who opens it maps the file and does not hold it, so a copy from or to what has ended raises, where the real
driver leaves undefined what happens.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from trims.devices import simulated_addresses as addresses
from trims.devices.driver import Gpu
from trims.devices.simulated_addresses import refused
from trims.devices.simulated_gpus import Machine
from trims.devices.slabs import padded
from trims.errors import DeviceLost

HANDLE = 64
"""Bytes of a handle, as CU_IPC_HANDLE_SIZE. Here: the name of the file, which begins with the pid of its maker."""


@dataclass(slots=True)
class _Memory:
    """One range of it in this process. opens: 0 of an allocation of its own."""

    ordinal: int
    fd: int
    nbytes: int
    handle: bytes
    opens: int = 0


class Allocations:
    """Safe to use from several threads."""

    def __init__(self, machine: Machine, alignment: int) -> None:
        self._machine = machine
        self._lock = threading.Lock()
        self._space = addresses.Addresses(alignment)
        self._there: dict[int, _Memory] = {}

    def allocate(self, gpu: Gpu, nbytes: int) -> int:
        if nbytes <= 0:
            raise refused("allocate", f"{nbytes} bytes are none")
        fd = self._machine.create(gpu.uuid, padded(nbytes, gpu.granularity), "allocation")
        name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}")).removeprefix("allocation-")
        with self._lock:
            return self._place(gpu, fd, name.encode().ljust(HANDLE, b"\0"))

    def free(self, ordinal: int, address: int) -> None:
        with self._lock:
            self._take_away(self._find("free_allocation", ordinal, address, opened=False))

    def handle(self, ordinal: int, address: int) -> bytes:
        with self._lock:
            return self._there[self._find("ipc_handle", ordinal, address, opened=False)].handle

    def open(self, gpu: Gpu, handle: bytes) -> int:
        name = handle.rstrip(b"\0").decode("ascii", "replace")
        if len(handle) != HANDLE or "/" in name:
            raise refused("ipc_open", "it is no handle")
        if name.partition("-")[0] == str(os.getpid()):
            raise refused("ipc_open", "this process allocated the memory")
        with self._lock:
            for address, memory in self._there.items():
                if (memory.ordinal, memory.handle) == (gpu.ordinal, handle):
                    memory.opens += 1
                    return address
            address = self._place(gpu, self._machine.find(gpu.uuid, f"allocation-{name}"), handle)
            self._there[address].opens = 1
            return address

    def close(self, ordinal: int, address: int) -> None:
        with self._lock:
            memory = self._there[self._find("ipc_close", ordinal, address, opened=True)]
            memory.opens -= 1
            if not memory.opens:
                self._take_away(address)

    def end(self, ordinal: int) -> None:
        """The context is gone, and all that was made in it."""
        with self._lock:
            for address in [at for at, memory in self._there.items() if memory.ordinal == ordinal]:
                self._take_away(address)

    def has(self, address: int) -> bool:
        """Whether an address is in memory of this kind."""
        with self._lock:
            return any(at <= address < at + memory.nbytes for at, memory in self._there.items())

    def check(self, call: str, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        """Raise DeviceLost unless a GPU may read, or write, every byte of a range, and the memory has not ended."""
        with self._lock:
            self._space.check(call, address, nbytes, ordinal, write)
            (memory,) = (m for at, m in self._there.items() if at <= address < at + m.nbytes)
            if memory.opens and not self._machine.lives(memory.fd):
                raise DeviceLost(f"the simulated GPU failed in {call}", "the memory ended with who allocated it")

    def _place(self, gpu: Gpu, fd: int, handle: bytes) -> int:
        """Map all of a file, whose descriptor is ours from now on, for reading and writing."""
        try:
            nbytes = os.fstat(fd).st_size
            address = self._space.reserve(nbytes)
            self._space.map(address, nbytes, fd, gpu.uuid)
            self._space.allow(address, nbytes, gpu.ordinal, write=True)
        except BaseException:
            os.close(fd)
            raise
        self._there[address] = _Memory(gpu.ordinal, fd, nbytes, handle)
        return address

    def _find(self, call: str, ordinal: int, address: int, opened: bool) -> int:
        memory = self._there.get(address)
        if memory is None or memory.ordinal != ordinal or bool(memory.opens) != opened:
            raise refused(call, "there is no such memory")
        return address

    def _take_away(self, address: int) -> None:
        memory = self._there.pop(address)
        self._space.unmap(address, memory.nbytes)
        self._space.free(address, memory.nbytes)
        os.close(memory.fd)
