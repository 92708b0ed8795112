"""What a workload asks for: models by name and size, before any of them is built, imported or loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trims.errors import UsageError

FAMILIES = ("small", "large", "own")
RUNS = ("weights", "onnxruntime", "torch")


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model of a workload.

    nbytes: bytes of its weights; tensors: how many weight tensors hold them.
    family: "small" or "large" (the paper's two groups) or "own" (the user's).
    synthetic: whether its tensors are made up (true sizes, no true architecture).
    file: the file that a native load reads, "" until it is built.
    runs: the function that can run it: "onnxruntime", "torch" or "weights" (reads every byte; any model can).
    Raises UsageError for an empty name, negative sizes, or an unknown family or function.
    """

    name: str
    nbytes: int
    tensors: int
    family: str = "small"
    synthetic: bool = True
    file: str = ""
    runs: str = "weights"

    def __post_init__(self) -> None:
        if not self.name:
            raise UsageError("a model of a workload has no name")
        if self.nbytes < 0 or self.tensors < 0:
            raise UsageError(f"model {self.name!r} has a negative size", f"{self.nbytes} bytes, {self.tensors} tensors")
        if self.family not in FAMILIES:
            raise UsageError(
                f"model {self.name!r}: unknown family {self.family!r}", "", "known: " + ", ".join(FAMILIES)
            )
        if self.runs not in RUNS:
            raise UsageError(f"model {self.name!r}: unknown function {self.runs!r}", "", "known: " + ", ".join(RUNS))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ModelSpec:
        """The model that `to_dict` wrote; fields of a newer version are passed over."""
        return cls(**{key: value for key, value in fields.items() if key in cls.__slots__})


def sizes(models: Sequence[ModelSpec]) -> npt.NDArray[np.int64]:
    """Weight bytes of each model, int64[len(models)]."""
    return np.array([model.nbytes for model in models], dtype=np.int64)


def total_bytes(models: Sequence[ModelSpec]) -> int:
    """Weight bytes of all of them together: what a machine that holds every one must have."""
    return sum(model.nbytes for model in models)


def positions(models: Sequence[ModelSpec]) -> dict[str, int]:
    """name -> position; raises UsageError when a name occurs twice."""
    found: dict[str, int] = {}
    for position, model in enumerate(models):
        if found.setdefault(model.name, position) != position:
            raise UsageError(f"two models of the workload are named {model.name!r}")
    return found
