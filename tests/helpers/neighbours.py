"""A neighbour: another process that has a model open and says, when asked, which bytes it sees."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

_CODE = """
import hashlib, sys, trims
with trims.open(sys.argv[1], sys.argv[2]) as model:
    print("open", flush=True)
    for line in sys.stdin:
        print(hashlib.sha256(b"".join(model[name].tobytes() for name in sorted(model))).hexdigest(), flush=True)
"""


def seen(arrays: Mapping[str, np.ndarray]) -> str:
    """What a neighbour should say of a model of these tensors."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays))).hexdigest()


class Neighbour:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.read()

    def read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def sees(self) -> str:
        """A digest of the bytes of all tensors, read now."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self.read()


@contextmanager
def neighbour(ref: str, place: str = "auto") -> Iterator[Neighbour]:
    """A process that has opened `ref` and keeps it open meanwhile."""
    command = [sys.executable, "-c", _CODE, ref, place]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Neighbour(process)
        finally:
            assert process.stdin
            process.stdin.close()
            assert process.wait(20) == 0
