"""The graph of any model of the table, written out by its family's module, and what is said and counted of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx
from onnx import TensorProto

from trims.workload.zoo.branching import branching
from trims.workload.zoo.chain import chain
from trims.workload.zoo.inception import inception
from trims.workload.zoo.mixed import mixed
from trims.workload.zoo.residual import residual
from trims.workload.zoo.table import ARCHITECTURES
from trims.workload.zoo.unfilled import Unfilled

_FAMILIES: dict[str, Callable[[str, int, float], Unfilled]] = {
    "branching": branching,
    "chain": chain,
    "inception": inception,
    "mixed": mixed,
    "residual": residual,
}


def graph(name: str, seed: int = 0, width: float = 1.0) -> Unfilled:
    """A model of the table as ONNX: float32 "x" 1x3xSxS to "y" 1xC, whose weights will follow from the seed.

    width: every layer's number of channels, the classes too, is multiplied by it and rounded.
    """
    return _FAMILIES[ARCHITECTURES[name]](name, seed, width)


def weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Number and bytes of the float32 initializers: the weights, without the integers that some operators take."""
    sizes = [math.prod(i.dims) for i in model.graph.initializer if i.data_type == TensorProto.FLOAT]
    return len(sizes), 4 * sum(sizes)


def mark(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Write down in the model what it is."""
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
