"""True architectures from the onnx package's "light" models: whole graphs whose weights are ConstantOfShape nodes.

Each such node becomes an initializer of that shape, drawn according to what it is used for, scaled by its fan-in so
that activations stay finite through any depth. What comes out runs on a 1x3x224x224 float32 input.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import numpy_helper

from trims.workload.zoo.noise import Floats, Noise


def light(name: str, seed: int = 0) -> onnx.ModelProto:
    """The onnx package's model `name` ("light_resnet50"), with weights that follow from the seed."""
    model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"{name}.onnx")
    graph, noise = model.graph, Noise(seed, name)
    shapes = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    uses = {name: (node.op_type, at) for node in graph.node for at, name in enumerate(node.input)}
    kept, made = [], []
    for node in graph.node:
        if node.op_type == "ConstantOfShape" and node.input[0] in shapes:
            shape = tuple(int(n) for n in shapes[node.input[0]])
            made.append(numpy_helper.from_array(draw(noise, shape, uses.get(node.output[0])), node.output[0]))
        else:
            kept.append(node)
    read = {name for node in kept for name in node.input}
    made += [i for i in graph.initializer if i.name in read]
    inputs = [i for i in graph.input if i.name not in shapes]
    for field, items in ((graph.node, kept), (graph.initializer, made), (graph.input, inputs)):
        del field[:]
        field.extend(items)
    return model


def draw(noise: Noise, shape: tuple[int, ...], use: tuple[str, int] | None) -> Floats:
    """A tensor for input number `use[1]` of an operator of kind `use[0]`."""
    kind, at = use or ("", 0)
    if kind == "BatchNormalization" and at in (1, 4):  # scale and variance
        return noise.between(shape, 0.4, 0.8)
    if len(shape) < 2:
        return noise.normal(shape, 0.01)
    return noise.weight(shape)
