"""What a request computes: one module a function, each with the same three functions.

prepare(threads): import what a prewarmed runtime of this function has in memory.
native(job): get the weights from the model's file as this framework does; the function that gives the first result.
shared(job): the same through trims; also how the model was had.

A first result is told as a number (a checksum) that is the same on both sides, so that a fast wrong answer is seen.
`ready` is the moment at which `native` or `shared` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from trims.errors import UsageError

Result = Callable[[], int]
READS = {"weights": (".safetensors", ".npz"), "torch": (".safetensors", ".pt", ".pth"), "onnxruntime": (".onnx",)}
"""Function -> the files, by suffix, that it can load natively."""
_MODULES = {"weights": "weights", "onnxruntime": "ort", "torch": "pytorch", "nothing": "nothing"}


@dataclass(frozen=True, slots=True)
class Job:
    """One request: the model by ref and by file, and what both sides share. timeout: seconds for a load."""

    ref: str
    file: str
    place: str = "host"
    share: str = "exact"
    threads: int = 1
    timeout: float = 120.0


class Function(Protocol):
    """A module of this package."""

    def prepare(self, threads: int, side: str) -> None: ...

    def native(self, job: Job) -> Result: ...

    def shared(self, job: Job) -> tuple[str, Result]: ...


def function(name: str) -> Function:
    """The function of that name; raises UsageError."""
    if name not in _MODULES:
        raise UsageError(f"unknown function {name!r} of a workload", "", "known: " + ", ".join(_MODULES))
    module: object = import_module(f"{__name__}.{_MODULES[name]}")
    return cast(Function, module)
