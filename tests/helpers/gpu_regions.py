"""A region on a simulated GPU as a manager makes it, filled by the driver's calls, and what a manager says of it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from helpers.driver_peer import Peer
from trims.devices import slabs
from trims.devices.simulated import SimulatedDriver
from trims.linux import fdpass, memfd
from trims.manifest import BlobSpec, Manifest, TensorSpec, table_bytes
from trims.places import gpu_place
from trims.wire.messages import Attached

SLAB = 2 << 20  # one unit of the simulated GPUs': small models have several slabs


class Made:
    """Tensors, a graph and files in slabs of one GPU. `close` gives the descriptors up; what maps them keeps them."""

    def __init__(
        self,
        directory: str,
        arrays: dict[str, np.ndarray[Any, Any]],
        graph: bytes | None = None,
        files: dict[str, bytes] | None = None,
        ordinal: int = 0,
    ) -> None:
        files = files or {}
        self.manifest = Manifest(
            tuple(
                TensorSpec(n, a.dtype.name, a.shape, f"{hash(a.tobytes()) & (1 << 256) - 1:064x}")
                for n, a in arrays.items()
            ),
            BlobSpec("graph", len(graph), "0" * 64) if graph is not None else None,
            tuple(BlobSpec(name, len(data), "0" * 64) for name, data in files.items()),
        )
        layout, self.table = self.manifest.layout, table_bytes(self.manifest)
        span = np.zeros(layout.nbytes, np.uint8)
        parts = {layout.tensors[name]: array.tobytes() for name, array in arrays.items()}
        parts |= {layout.graph[0]: graph} if layout.graph and graph else {}
        parts |= {at[0]: files[name] for name, at in layout.files.items()}
        for offset, data in parts.items():
            span[offset : offset + len(data)] = np.frombuffer(data, np.uint8)
        self.span = len(span)
        blobs = [*([layout.graph] if layout.graph else []), *layout.files.values()]
        self.tail = min((offset for offset, _ in blobs), default=self.span)
        driver = SimulatedDriver(directory)  # another one than the client's: calls that shall fail are counted in each
        gpu = driver.gpus()[ordinal]
        self.place, self.granularity = gpu_place(gpu.uuid), gpu.granularity
        self.sizes, fds = self._filled(driver, ordinal, span)
        self.fds = [_sealed(span[self.tail :].tobytes() + self.table), *fds]

    def _filled(
        self, driver: SimulatedDriver, ordinal: int, span: np.ndarray[Any, Any]
    ) -> tuple[tuple[int, ...], list[int]]:
        """The sizes and descriptors of new slabs with these bytes."""
        sizes = slabs.cut(self.span, self.granularity, SLAB)
        return sizes, _filled(driver, ordinal, sizes, span)

    def answer(self, id: int = 1, lease: int = 7, **changes: Any) -> Attached:
        """What a manager says with the descriptors."""
        fields: dict[str, Any] = {
            "id": id, "lease": lease, "digest": f"{id_of(self):064x}", "variant": "raw", "place": self.place,
            "map_nbytes": sum(self.sizes), "table": (self.span, len(self.table)), "slabs": list(self.sizes),
            "tail": self.tail,
        }  # fmt: skip
        return Attached(**{**fields, **changes})

    def descriptors(self) -> list[int]:
        """Copies of the descriptors, as they arrive in a client."""
        return [os.dup(fd) for fd in self.fds]

    def close(self) -> None:
        fdpass.close_all(self.fds)
        self.fds = []


class OwnedByPeer(Made):
    """The same as one allocation of another process, to be opened by legacy IPC; the peer has the GPU open."""

    def __init__(self, peer: Peer, directory: str, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        self.peer = peer
        super().__init__(directory, arrays, b"a graph", {"labels.txt": b"cat\n"})

    def _filled(
        self, driver: SimulatedDriver, ordinal: int, span: np.ndarray[Any, Any]
    ) -> tuple[tuple[int, ...], list[int]]:
        peer, size = self.peer, slabs.padded(self.span, self.granularity)
        peer.open(ordinal)
        self.address = peer.allocate(ordinal, size)
        stream = peer.stream(ordinal)
        peer.copy_in(ordinal, self.address, peer.host(span.tobytes(), False), len(span), stream)
        peer.wait(ordinal, stream)
        self.handle = bytes(peer.ipc_handle(ordinal, self.address))
        return (size,), []

    def answer(self, id: int = 1, lease: int = 7, **changes: Any) -> Attached:
        return super().answer(id, lease, **{"ipc": [self.handle.hex()], **changes})


def id_of(made: Made) -> int:
    return hash(made.table) & (1 << 256) - 1


def _sealed(data: bytes) -> int:
    fd = memfd.create("test-tail", memfd.pages(len(data)))
    try:
        os.pwrite(fd, data, 0)
        return memfd.seal(fd)
    finally:
        os.close(fd)


def _filled(driver: SimulatedDriver, ordinal: int, sizes: tuple[int, ...], span: np.ndarray[Any, Any]) -> list[int]:
    """The descriptors of new slabs with these bytes."""
    driver.open(ordinal)
    stream = driver.stream(ordinal)
    fds, done = [], 0
    for size in sizes:
        handle = driver.create(ordinal, size)
        fds.append(driver.export(handle))
        address = driver.reserve(size)
        driver.map(address, size, handle)
        driver.allow(address, size, ordinal, write=True)
        part = np.ascontiguousarray(span[done : done + size])
        if len(part):
            driver.copy_in(ordinal, address, part.ctypes.data, len(part), stream)
            driver.wait(ordinal, stream)
        driver.unmap(address, size)
        driver.free(address, size)
        driver.release(handle)
        done += size
    driver.end_stream(ordinal, stream)
    driver.close(ordinal)
    return fds
