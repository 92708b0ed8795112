"""The graph of a model, from whichever source its table entry names, and what is said and counted of it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto

from trims.workload.zoo.light import light
from trims.workload.zoo.table import ZooModel


def graph(model: ZooModel, seed: int, scale: float) -> onnx.ModelProto:
    """`model` as ONNX with weights that follow from the seed, for a float32 input of 1x3xSxS."""
    return light(model.architecture.partition(" ")[2], seed)


def weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Number and bytes of the float32 initializers: the weights, without the integers that some operators take."""
    sizes = [math.prod(i.dims) for i in model.graph.initializer if i.data_type == TensorProto.FLOAT]
    return len(sizes), 4 * sum(sizes)


def mark(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Write down in the model what it is."""
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
