"""An ONNX graph under construction: layers of convolutional networks with random float32 weights, still to be drawn.

A value is a name; the builder knows its channels. Every width is multiplied by `width` and rounded, so that a network
can be narrowed to a smaller scale with its depth and its number of tensors kept: sizes fall about as width squared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from trims.workload.zoo.noise import Noise, deviation_of
from trims.workload.zoo.unfilled import Unfilled, Weight

OPSET, IR = 17, 8  # what ONNX Runtime has read since 1.12


class Net:
    """Nodes and weights so far; every method adds layers behind the value `x` and returns the name of the new value."""

    def __init__(self, noise: Noise, side: int, width: float = 1.0) -> None:
        self._noise, self._side, self._width = noise, side, width
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[Weight] = []
        self._model = onnx.ModelProto()
        self.channels = {"x": 3}

    def wide(self, n: int, whole: int = 1) -> int:
        """`n` channels, narrowed to a multiple of `whole`."""
        return whole * max(1, round(n * self._width / whole))

    def conv(
        self,
        x: str,
        out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int | tuple[int, int] = 0,
        *,
        groups: int = 1,
        whole: int = 1,
        bias: bool = False,
    ) -> str:
        """A convolution to `out` channels before narrowing, to a multiple of `whole`: the groups of it and the next.

        kernel, pad: of rows and of columns, or of both.
        """
        return self.exact(x, self.wide(out, whole), kernel, stride, pad, groups, bias)

    def exact(
        self,
        x: str,
        channels: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pad: int | tuple[int, int] = 0,
        groups: int = 1,
        bias: bool = False,
    ) -> str:
        """A convolution to exactly `channels` channels: for layers that must fit others, as one group a channel."""
        sides, pads = _pair(kernel), _pair(pad)
        name = f"conv{len(self._nodes)}"
        inputs = [x, self._weight(f"{name}.weight", (channels, self.channels[x] // groups, *sides))]
        if bias:
            inputs.append(self._tensor(Weight(f"{name}.bias", (channels,), 0.01)))
        return self._op("Conv", inputs, channels, strides=[stride] * 2, pads=[*pads, *pads], group=groups)

    def norm(self, x: str) -> str:
        """Batch normalisation, as it is after training: four vectors."""
        name, n = f"norm{len(self._nodes)}", (self.channels[x],)
        positive = {kind: Weight(f"{name}.{kind}", n, low=0.4, high=0.8) for kind in ("scale", "variance")}
        around0 = {kind: Weight(f"{name}.{kind}", n, 0.01) for kind in ("shift", "mean")}
        made = {kind: self._tensor(weight) for kind, weight in (positive | around0).items()}
        return self._op("BatchNormalization", [x, *(made[k] for k in ("scale", "shift", "mean", "variance"))], n[0])

    def relu(self, x: str) -> str:
        return self._op("Relu", [x], self.channels[x])

    def lrn(self, x: str) -> str:
        """Local response normalisation over five channels, with AlexNet's constants."""
        return self._op("LRN", [x], self.channels[x], size=5, alpha=1e-4, beta=0.75, bias=1.0)

    def pool(self, x: str, kernel: int, stride: int, pad: int = 0, ceil: bool = False, mean: bool = False) -> str:
        """The maximum, or the mean, over kernel x kernel."""
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4, "ceil_mode": int(ceil)}
        return self._op("AveragePool" if mean else "MaxPool", [x], self.channels[x], **shape)

    def average(self, x: str) -> str:
        """The mean of each channel, as a row of features."""
        pooled = self._op("GlobalAveragePool", [x], self.channels[x])
        return self._op("Flatten", [pooled], self.channels[x])

    def flatten(self, x: str, side: int) -> str:
        """All values of channels of side x side as a row of features."""
        return self._op("Flatten", [x], self.channels[x] * side * side)

    def full(self, x: str, out: int) -> str:
        """A full layer with bias, from the row of features `x`."""
        name, wide = f"full{len(self._nodes)}", self.wide(out)
        weight = self._weight(f"{name}.weight", (wide, self.channels[x]))
        bias = self._tensor(Weight(f"{name}.bias", (wide,), 0.01))
        return self._op("Gemm", [x, weight, bias], wide, transB=1)

    def add(self, x: str, y: str) -> str:
        return self._op("Add", [x, y], self.channels[x])

    def times(self, x: str, factor: float) -> str:
        """Every value times a constant, which is a node and no weight."""
        name = f"factor{len(self._nodes)}"
        self._nodes.append(helper.make_node("Constant", [], [name], value_float=factor))
        return self._op("Mul", [x, name], self.channels[x])

    def split(self, x: str, first: int) -> tuple[str, str]:
        """The first `first` channels, and the others."""
        sizes = [first, self.channels[x] - first]
        name = f"sizes{len(self._nodes)}"
        self._model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
        parts = (f"{name}.first", f"{name}.rest")
        self._nodes.append(helper.make_node("Split", [x, name], list(parts), axis=1))
        self.channels |= dict(zip(parts, sizes, strict=True))
        return parts

    def concat(self, *values: str) -> str:
        return self._op("Concat", list(values), sum(self.channels[value] for value in values), axis=1)

    def model(self, name: str, x: str) -> Unfilled:
        """The network that ends in the row of features `x`: float32 "x" 1x3xSxS to float32 "y"."""
        self._nodes.append(helper.make_node("Identity", [x], ["y"]))
        value, graph = helper.make_tensor_value_info, self._model.graph
        graph.name = name
        graph.node.extend(self._nodes)
        graph.input.append(value("x", TensorProto.FLOAT, [1, 3, self._side, self._side]))
        graph.output.append(value("y", TensorProto.FLOAT, [1, self.channels[x]]))
        self._model.opset_import.append(helper.make_opsetid("", OPSET))
        self._model.ir_version = IR
        return Unfilled(self._model, tuple(self._weights), self._noise)

    def _op(self, kind: str, inputs: list[str], channels: int, **attributes: Any) -> str:
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        self.channels[name] = channels
        return name

    def _weight(self, name: str, shape: tuple[int, ...]) -> str:
        return self._tensor(Weight(name, shape, deviation_of(shape)))

    def _tensor(self, weight: Weight) -> str:
        self._weights.append(weight)
        return weight.name


def _pair(n: int | tuple[int, int]) -> tuple[int, int]:
    return (n, n) if isinstance(n, int) else n
