"""GPUs that are not there, for tests and for trying trims without one: the driver's contract in plain memory.

It works across processes and fails on demand (`trims.devices.simulated_gpus`). Where the real driver may let a mistake
pass, this one is strict: copies are late (`trims.devices.simulated_copies`), and calls that undo something do so even
on a lost GPU, and then raise. Nothing measured on it says anything about a GPU.
"""

from __future__ import annotations

import itertools
import mmap
import os
import threading
from dataclasses import dataclass

from trims.devices import simulated_addresses as addresses
from trims.devices.driver import Driver, Gpu, Usage
from trims.devices.simulated_addresses import refused
from trims.devices.simulated_copies import Copies, Copy
from trims.devices.simulated_gpus import CONTEXT, Failures, Machine, fail, make
from trims.devices.simulated_ipc import Allocations
from trims.errors import DeviceLost

__all__ = ["SimulatedDriver", "fail", "make"]


@dataclass(slots=True)
class _Context:
    """A process's context on one GPU: how often it was opened, and the descriptor of what it takes."""

    fd: int
    opens: int = 1


class SimulatedDriver(Driver):
    """The GPUs of `directory` (`make` makes one), as CUDA_VISIBLE_DEVICES shows them."""

    simulated = True

    def __init__(self, directory: str, visible: str | None = None) -> None:
        """visible: the value of CUDA_VISIBLE_DEVICES, or None. Raises DeviceLost when the directory has no GPUs."""
        self._machine = Machine(directory, visible)
        self._failures = Failures(directory)
        self._pid = os.getpid()
        self._lock = threading.Lock()
        alignment = max((g.granularity for g in self._machine.gpus), default=mmap.PAGESIZE)
        self._space = addresses.Addresses(alignment)
        self._allocations = Allocations(self._machine, alignment)
        self._numbers = itertools.count(1)
        self._handles: dict[int, int] = {}
        self._contexts: dict[int, _Context] = {}
        self._copies = Copies()

    # ---- without a context

    def gpus(self) -> tuple[Gpu, ...]:
        return self._machine.gpus

    def usage(self, uuid: str) -> Usage:
        self._failures.check("usage", uuid)
        return Usage(*self._machine.usage(uuid))

    def notes(self, uuid: str) -> tuple[str, ...]:
        self._failures.check("notes", uuid)
        return ("simulated: nothing measured on it says anything about a GPU", *self._machine.notes(uuid))

    def create(self, ordinal: int, nbytes: int) -> int:
        gpu = self._begin("create", ordinal)
        if nbytes <= 0 or nbytes % gpu.granularity:
            raise refused("create", f"{nbytes} bytes are not whole units of {gpu.granularity}")
        return self._keep(self._machine.create(gpu.uuid, nbytes))

    def export(self, handle: int) -> int:
        fd = self._fd("export", handle)
        uuid = self._machine.owner(fd)
        self._check("export", uuid)
        if not next(g for g in self.gpus() if g.uuid == uuid).shares:
            raise DeviceLost(f"the memory of GPU {uuid} cannot be given to other processes")
        return os.dup(fd)

    def import_(self, fd: int) -> int:
        self._check("import", self._machine.owner(fd))
        return self._keep(os.dup(fd))

    def release(self, handle: int) -> None:
        fd = self._fd("release", handle)
        uuid = self._machine.owner(fd)
        with self._lock:
            del self._handles[handle]
        os.close(fd)
        self._check("release", uuid)

    # ---- addresses

    def reserve(self, nbytes: int) -> int:
        self._check("reserve")
        with self._lock:
            return self._space.reserve(nbytes)

    def map(self, address: int, nbytes: int, handle: int) -> None:
        fd = self._fd("map", handle)
        uuid = self._machine.owner(fd)
        self._check("map", uuid)
        if os.fstat(fd).st_size != nbytes:
            raise refused("map", "the size is not that of the whole memory")
        with self._lock:
            self._space.map(address, nbytes, fd, uuid)

    def allow(self, address: int, nbytes: int, ordinal: int, write: bool) -> None:
        uuid = self._begin("allow", ordinal).uuid
        with self._lock:
            owners = {mapping.uuid for _, mapping in self._space.whole("allow", address, nbytes)}
        for owner in owners:
            if owner != uuid and not self._machine.reaches(uuid, owner):
                raise refused("allow", f"GPU {uuid} cannot reach the memory of {owner}")
        with self._lock:
            self._space.allow(address, nbytes, ordinal, write)

    def access(self, address: int, ordinal: int) -> str:
        self._begin("access", ordinal)
        with self._lock:
            return self._space.access(address, ordinal)

    def unmap(self, address: int, nbytes: int) -> None:
        self._copies.run()
        with self._lock:
            owners = {mapping.uuid for _, mapping in self._space.whole("unmap", address, nbytes)}
            self._space.unmap(address, nbytes)
        self._check("unmap", *owners)

    def free(self, address: int, nbytes: int) -> None:
        with self._lock:
            self._space.free(address, nbytes)
        self._check("free")

    # ---- with a context

    def open(self, ordinal: int) -> None:
        gpu = self._begin("open", ordinal)
        with self._lock:
            context = self._contexts.get(ordinal)
            if context is not None:
                context.opens += 1
                return
            self._contexts[ordinal] = _Context(self._machine.create(gpu.uuid, CONTEXT, "context"))

    def close(self, ordinal: int) -> None:
        uuid = self._gpu("close", ordinal).uuid
        self._open_context("close", ordinal)
        with self._lock:
            context = self._contexts[ordinal]
            context.opens -= 1
            if not context.opens:
                os.close(self._contexts.pop(ordinal).fd)
                self._allocations.end(ordinal)
        self._check("close", uuid)

    def synchronize(self, ordinal: int) -> None:
        self._within("synchronize", ordinal)
        self._copies.run(ordinal)

    def pin(self, ordinal: int, nbytes: int) -> int:
        self._within("pin", ordinal)
        return self._copies.pin(ordinal, nbytes)

    def unpin(self, ordinal: int, address: int) -> None:
        self._copies.unpin(ordinal, address)
        self._within("unpin", ordinal)

    def register(self, ordinal: int, address: int, nbytes: int) -> None:
        gpu = self._within("register", ordinal)
        self._copies.register(ordinal, address, nbytes, gpu.reads_registered)

    def unregister(self, ordinal: int, address: int) -> None:
        self._copies.unregister(ordinal, address)
        self._within("unregister", ordinal)

    def stream(self, ordinal: int) -> int:
        self._within("stream", ordinal)
        return self._copies.stream(ordinal)

    def end_stream(self, ordinal: int, stream: int) -> None:
        self._copies.end_stream(ordinal, stream)
        self._within("end_stream", ordinal)

    def copy_in(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._may_copy("copy_in", ordinal, nbytes, to=to)
        self._copies.add("copy_in", ordinal, stream, Copy(to, source, nbytes, host=source))

    def copy_out(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._may_copy("copy_out", ordinal, nbytes, source=source)
        self._copies.add("copy_out", ordinal, stream, Copy(to, source, nbytes, host=to))

    def copy_across(self, ordinal: int, to: int, source: int, nbytes: int, stream: int) -> None:
        self._may_copy("copy_across", ordinal, nbytes, to=to, source=source)
        self._copies.add("copy_across", ordinal, stream, Copy(to, source, nbytes))

    def wait(self, ordinal: int, stream: int) -> None:
        self._within("wait", ordinal)
        self._copies.wait(ordinal, stream)

    def reaches(self, ordinal: int, other: int) -> bool:
        return self._machine.reaches(self._begin("reaches", ordinal).uuid, self._gpu("reaches", other).uuid)

    # ---- legacy IPC

    def allocate(self, ordinal: int, nbytes: int) -> int:
        return self._allocations.allocate(self._within("allocate", ordinal), nbytes)

    def free_allocation(self, ordinal: int, address: int) -> None:
        self._copies.run()
        self._allocations.free(ordinal, address)
        self._within("free_allocation", ordinal)

    def ipc_handle(self, ordinal: int, address: int) -> bytes:
        self._within("ipc_handle", ordinal)
        return self._allocations.handle(ordinal, address)

    def ipc_open(self, ordinal: int, handle: bytes) -> int:
        return self._allocations.open(self._within("ipc_open", ordinal), handle)

    def ipc_close(self, ordinal: int, address: int) -> None:
        self._copies.run()
        self._allocations.close(ordinal, address)
        self._within("ipc_close", ordinal)

    # ----

    def _check(self, call: str, *uuids: str) -> None:
        """Every call comes by here once: raise DeviceLost in a forked child, and whatever was chosen to fail."""
        if os.getpid() != self._pid:
            raise DeviceLost("CUDA cannot be used in a forked child", f"process {self._pid} started it")
        self._failures.check(call, *uuids)

    def _gpu(self, call: str, ordinal: int) -> Gpu:
        if not 0 <= ordinal < len(self.gpus()):
            raise DeviceLost(f"no GPU {ordinal}", f"{call} named it; this process sees {len(self.gpus())}")
        return self.gpus()[ordinal]

    def _begin(self, call: str, ordinal: int) -> Gpu:
        gpu = self._gpu(call, ordinal)
        self._check(call, gpu.uuid)
        return gpu

    def _open_context(self, call: str, ordinal: int) -> None:
        if ordinal not in self._contexts:
            raise refused(call, f"this process has no context on GPU {ordinal}")

    def _within(self, call: str, ordinal: int) -> Gpu:
        """`_begin` of a call that needs a context."""
        gpu = self._begin(call, ordinal)
        self._open_context(call, ordinal)
        return gpu

    def _keep(self, fd: int) -> int:
        with self._lock:
            handle = next(self._numbers)
            self._handles[handle] = fd
        return handle

    def _fd(self, call: str, handle: int) -> int:
        fd = self._handles.get(handle)
        if fd is None:
            raise refused(call, "there is no such handle")
        return fd

    def _may_copy(self, call: str, ordinal: int, nbytes: int, to: int | None = None, source: int | None = None) -> None:
        """Raise DeviceLost unless a GPU may write or read its side, or both sides, of a copy."""
        self._within(call, ordinal)
        for address, write in ((source, False), (to, True)):
            if address is not None and self._allocations.has(address):
                self._allocations.check(call, address, nbytes, ordinal, write)
            elif address is not None:
                with self._lock:
                    self._space.check(call, address, nbytes, ordinal, write)
