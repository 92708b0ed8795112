"""The graph of a model, from whichever source its table entry names, and what is said and counted of it."""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto, numpy_helper

from trims.workload.zoo import exported
from trims.workload.zoo.light import draw, light
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.table import ZooModel
from trims.workload.zoo.written import written


def graph(model: ZooModel, source: str, seed: int, width: float) -> onnx.ModelProto:
    """`model` from `source` as ONNX with weights that follow from the seed, for a float32 input of 1x3xSxS.

    width: of every layer, where the source is "trims"; the others come as they are.
    Raises exported.Unavailable when the source's library does not work.
    """
    library, _, constructor = source.partition(" ")
    if library == "trims":
        return written(model.spec.name, seed, width)
    if library == "onnx":
        return light(constructor, seed)
    proto = exported.export(source)
    _redraw(proto, Noise(seed, model.spec.name))
    return proto


def _redraw(model: onnx.ModelProto, noise: Noise) -> None:
    """Give every weight of the graph new values; constants that are no weights stay."""
    uses = {name: (node.op_type, at) for node in model.graph.node for at, name in enumerate(node.input)}
    for tensor in model.graph.initializer:
        use = uses.get(tensor.name, ("", 0))
        if use[0] in ("Conv", "Gemm", "MatMul", "BatchNormalization") and tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(draw(noise, tuple(tensor.dims), use), tensor.name))


def weights(model: onnx.ModelProto) -> tuple[int, int]:
    """Number and bytes of the float32 initializers: the weights, without the integers that some operators take."""
    sizes = [math.prod(i.dims) for i in model.graph.initializer if i.data_type == TensorProto.FLOAT]
    return len(sizes), 4 * sum(sizes)


def mark(model: onnx.ModelProto, metadata: dict[str, str]) -> None:
    """Write down in the model what it is."""
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
