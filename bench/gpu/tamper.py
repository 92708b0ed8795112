"""Somebody with descriptors of a model's memory changes a byte of it on purpose; says of which tensor.

    python -m bench.gpu.tamper SOCKET REF PLACE

Whoever imports memory of a GPU chooses their own access: this is what docs/gpu.md says of who may get a descriptor.
"""

from __future__ import annotations

import os
import sys

from bench.gpu import peers  # where the tests' helpers are, too
from trims.devices import drivers
from trims.manifest import parse_table
from trims.transfer.gpu_range import GpuRange
from trims.wire.messages import Attached


def main() -> None:
    from helpers.raw import Raw

    socket, ref, place = sys.argv[1:]
    driver = drivers.find()
    driver.open(0)
    with Raw(socket) as client:
        answer = client.attach(ref, place=place)
        assert isinstance(answer, Attached) and peers
        offset, nbytes = answer.table
        tail, *slabs = client.fds
        rows = list(parse_table(os.pread(tail, nbytes, offset - answer.tail)).rows())
        name, *_, at = rows[len(rows) // 2]
        with GpuRange(driver, 0, slabs, answer.slabs, write=True) as there:
            import numpy as np

            byte, stream = np.zeros(1, np.uint8), driver.stream(0)
            driver.copy_out(0, byte.ctypes.data, there.address + at, 1, stream)
            driver.wait(0, stream)
            byte ^= 0xFF
            driver.copy_in(0, there.address + at, byte.ctypes.data, 1, stream)
            driver.wait(0, stream)
            driver.end_stream(0, stream)
    print(name)


if __name__ == "__main__":
    main()
