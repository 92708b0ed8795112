"""Simulated GPUs for tests, and what is in their memory."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trims.devices import drivers
from trims.devices.driver import Driver, Gpu
from trims.places import gpu_place
from trims.transfer.gpu_range import GpuRange

MIB = 1 << 20
SLAB = 4 * MIB
"""Bytes of a slab in tests: so that a small model has several."""


class Gpus:
    """The GPUs of one directory, as this process sees them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    @property
    def driver(self) -> Driver:
        return drivers.find({"TRIMS_SIMULATED_GPUS": self.directory})

    @property
    def all(self) -> tuple[Gpu, ...]:
        return self.driver.gpus()

    def place(self, number: int = 0) -> str:
        return gpu_place(self.all[number].uuid)

    def used(self, number: int = 0) -> int:
        """Bytes that any process has of a GPU, contexts included."""
        return self.driver.usage(self.all[number].uuid).used

    def read(self, fds: Sequence[int], sizes: Sequence[int], nbytes: int, number: int = 0) -> bytes:
        """The first bytes of slabs, copied to the host; the descriptors stay the caller's."""
        driver, ordinal = self.driver, self.all[number].ordinal
        out = np.zeros(max(1, nbytes), np.uint8)
        driver.open(ordinal)
        try:
            with GpuRange(driver, ordinal, fds, sizes, write=False) as there:
                stream = driver.stream(ordinal)
                driver.copy_out(ordinal, out.ctypes.data, there.address, nbytes, stream)
                driver.wait(ordinal, stream)
                driver.end_stream(ordinal, stream)
        finally:
            driver.close(ordinal)
        return out[:nbytes].tobytes()

    def write(self, fds: Sequence[int], sizes: Sequence[int], at: int, data: bytes, number: int = 0) -> None:
        """Change bytes in slabs: whoever has their descriptors can."""
        driver, ordinal = self.driver, self.all[number].ordinal
        source = np.frombuffer(data, np.uint8)
        driver.open(ordinal)
        try:
            with GpuRange(driver, ordinal, fds, sizes, write=True) as there:
                stream = driver.stream(ordinal)
                driver.copy_in(ordinal, there.address + at, source.ctypes.data, len(data), stream)
                driver.wait(ordinal, stream)
                driver.end_stream(ordinal, stream)
        finally:
            driver.close(ordinal)


def entered(gate: Path) -> int:
    """The descriptor of a FIFO at which somebody stands."""
    while True:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
