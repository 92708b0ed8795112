"""Models made in code, in the shape that importers give them: for tests that are not about any file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class CodeTensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], memoryview]


@dataclass
class CodeSource:
    """What `trims.disk.importers.base.Source` promises, over arrays in memory."""

    tensors: list[CodeTensor]
    graph: Callable[[Mapping[str, int]], bytes] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    format: str = "npz"
    origin: dict[str, Any] = field(default_factory=lambda: {"path": "made in code"})
    closed: bool = False
    on_disk: tuple[()] = ()

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> CodeSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def tensor(name: str, array: np.ndarray, dtype: str | None = None) -> CodeTensor:
    """A tensor of an array; `dtype` for what NumPy has only as integers (bfloat16, float8)."""
    data = np.ascontiguousarray(array).reshape(array.shape)
    raw = data.tobytes()
    return CodeTensor(name, dtype or str(array.dtype), array.shape, lambda: memoryview(raw))


def source(arrays: Mapping[str, np.ndarray], **fields: Any) -> CodeSource:
    """A model of these arrays."""
    return CodeSource([tensor(name, array) for name, array in arrays.items()], **fields)


def numbers(seed: int, *shape: int, dtype: str = "float32") -> np.ndarray:
    """Weights as trained ones look: small normal numbers."""
    return (np.random.default_rng(seed).standard_normal(shape) * 0.02).astype(dtype)


def bfloat16(array: np.ndarray) -> np.ndarray:
    """The upper halves of float32 numbers, as uint16."""
    return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def sample(seed: int = 0) -> CodeSource:
    """A small model with everything: two dtypes, a tie, a scalar, an empty tensor, a graph and files."""
    weight, embedding = numbers(seed, 300, 7), numbers(seed + 1, 64, 33)
    return CodeSource(
        [
            tensor("conv1.weight", weight),
            tensor("tied/weight", weight),
            tensor("embedding", bfloat16(embedding), "bfloat16"),
            tensor("step", np.array(seed, np.int64)),
            tensor("empty", np.zeros((0, 3), np.float16)),
            tensor("mask", np.array([True, False, True])),
        ],
        graph=lambda offsets: b"graph " + b",".join(f"{n}@{o}".encode() for n, o in sorted(offsets.items())),
        files={"labels.txt": b"cat\ndog\n", "deep/config.json": b"{}"},
        format="onnx",
    )
