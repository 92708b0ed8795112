"""A Vision Transformer as ONNX with random weights, made by hand; the library's zoo has the convolutional networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def random_matrix(rng: np.random.Generator, shape: list[int], fan_in: int) -> Array:
    """Normal with the variance that keeps activations at one scale: 2 / fan-in."""
    return rng.standard_normal(shape, dtype=np.float32) * np.float32((2.0 / fan_in) ** 0.5)


class _Builder:
    """Nodes and initializers of a graph under construction; names are given, shapes are the caller's."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def matrix(self, name: str, *shape: int, fan_in: int = 0) -> str:
        return self.constant(name, random_matrix(self.rng, list(shape), fan_in or shape[0]))

    def vector(self, name: str, n: int, around: float = 0.0) -> str:
        return self.constant(name, (around + 0.01 * self.rng.standard_normal(n)).astype(np.float32))

    def constant(self, name: str, value: Array) -> str:
        self.weights.append(numpy_helper.from_array(value, name))
        return name

    def linear(self, x: str, name: str, n_in: int, n_out: int) -> str:
        product = self.op("MatMul", x, self.matrix(f"{name}.weight", n_in, n_out))
        return self.op("Add", product, self.vector(f"{name}.bias", n_out))

    def norm(self, x: str, name: str, width: int) -> str:
        scale, bias = self.vector(f"{name}.weight", width, 1.0), self.vector(f"{name}.bias", width)
        return self.op("LayerNormalization", x, scale, bias, axis=-1)


def vit(layers: int, width: int = 768, heads: int = 12, classes: int = 1000, seed: int = 0) -> onnx.ModelProto:
    """A Vision Transformer of 16x16 patches over a 1x3x224x224 image `x`, as ViT-B/16 but for the number of layers."""
    g = _Builder(seed)
    tokens, head = 197, width // heads
    g.constant("shape.patches", np.array([1, width, tokens - 1], np.int64))
    g.constant("shape.split", np.array([1, tokens, 3, heads, head], np.int64))
    g.constant("shape.merged", np.array([1, tokens, width], np.int64))
    g.constant("scale", np.array(head**-0.5, np.float32))
    g.constant("half", np.array(0.5, np.float32))
    g.constant("one", np.array(1.0, np.float32))
    g.constant("root", np.array(2.0**0.5, np.float32))
    for n in range(3):
        g.constant(f"index.{n}", np.array(n, np.int64))
    kernel = g.matrix("patch.weight", width, 3, 16, 16, fan_in=3 * 16 * 16)
    patches = g.op("Conv", "x", kernel, g.vector("patch.bias", width), strides=[16, 16])
    patches = g.op("Transpose", g.op("Reshape", patches, "shape.patches"), perm=[0, 2, 1])
    cls = g.matrix("cls", 1, 1, width, fan_in=width)
    x = g.op("Add", g.op("Concat", cls, patches, axis=1), g.matrix("position", 1, tokens, width, fan_in=width))
    for n in range(layers):
        x = g.op("Add", x, _attention(g, g.norm(x, f"block{n}.norm1", width), f"block{n}", width))
        x = g.op("Add", x, _feed_forward(g, g.norm(x, f"block{n}.norm2", width), f"block{n}", width))
    first = g.op("Gather", g.norm(x, "norm", width), "index.0", axis=1)
    g.nodes.append(helper.make_node("Identity", [g.linear(first, "head", width, classes)], ["y"]))
    value = helper.make_tensor_value_info
    ends = [value("x", TensorProto.FLOAT, [1, 3, 224, 224])], [value("y", TensorProto.FLOAT, [1, classes])]
    graph = helper.make_graph(g.nodes, f"vit{layers}", *ends, g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _attention(g: _Builder, x: str, name: str, width: int) -> str:
    qkv = g.op("Reshape", g.linear(x, f"{name}.qkv", width, 3 * width), "shape.split")
    qkv = g.op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
    q, k, v = (g.op("Gather", qkv, f"index.{n}", axis=0) for n in range(3))
    scores = g.op("Mul", g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2])), "scale")
    mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)
    merged = g.op("Reshape", g.op("Transpose", mixed, perm=[0, 2, 1, 3]), "shape.merged")
    return g.linear(merged, f"{name}.out", width, width)


def _feed_forward(g: _Builder, x: str, name: str, width: int) -> str:
    hidden = g.linear(x, f"{name}.fc1", width, 4 * width)
    gate = g.op("Mul", g.op("Add", g.op("Erf", g.op("Div", hidden, "root")), "one"), "half")
    return g.linear(g.op("Mul", hidden, gate), f"{name}.fc2", 4 * width, width)
