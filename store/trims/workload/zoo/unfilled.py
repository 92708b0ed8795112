"""An ONNX model whose float32 weights are still to be drawn, so that they can go to a file without being held.

Protocol Buffers write a message as its fields in any order, each a tag, for messages and bytes a length, and the
content; so a model is: its other fields, the tag of its graph (field 7) and the graph's length, the graph's other
fields, and each weight as an initializer (field 5): name, shape and type, then its bytes (field 9). Held whole, a model
of 549 MiB costs three times that in memory, and most of the time that it takes to build.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx
from onnx import TensorProto

from trims.disk.importers.protobuf import tagged
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.output import Output

_GRAPH, _INITIALIZER, _RAW_DATA = (
    7,
    5,
    9,
)  # ModelProto.graph, GraphProto.initializer, TensorProto.raw_data in onnx.proto


@dataclass(frozen=True, slots=True)
class Weight:
    """A float32 tensor to draw: normal with `deviation`, or, where high is above low, evenly from [low, high)."""

    name: str
    shape: tuple[int, ...]
    deviation: float = 0.0
    low: float = 0.0
    high: float = 0.0

    @property
    def nbytes(self) -> int:
        return 4 * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Unfilled:
    """model: everything but the weights; weights: in the order in which they are drawn from `noise`, once."""

    model: onnx.ModelProto
    weights: tuple[Weight, ...]
    noise: Noise

    @property
    def nbytes(self) -> int:
        """Bytes of all weights."""
        return sum(weight.nbytes for weight in self.weights)

    def filled(self) -> onnx.ModelProto:
        """The whole model, in memory; takes the noise that `write` would have taken."""
        whole = onnx.ModelProto()
        whole.CopyFrom(self.model)
        for weight in self.weights:
            made = whole.graph.initializer.add(name=weight.name, data_type=TensorProto.FLOAT, dims=weight.shape)
            made.raw_data = b"".join(cut.tobytes() for cut in self.noise.draw(weight))
        return whole

    def write(self, out: Output) -> None:
        """Write the whole model."""
        rest = onnx.ModelProto()
        rest.CopyFrom(self.model)
        rest.ClearField("graph")
        graph = self.model.graph.SerializeToString(deterministic=True)
        heads = [_head(weight) for weight in self.weights]
        size = len(graph) + sum(len(head) + weight.nbytes for head, weight in zip(heads, self.weights, strict=True))
        out.write(rest.SerializeToString(deterministic=True) + tagged(_GRAPH, size) + graph)
        for head, weight in zip(heads, self.weights, strict=True):
            out.write(head)
            for cut in self.noise.draw(weight):
                out.write(cut.data)


def _head(weight: Weight) -> bytes:
    """All of an initializer that comes before its values, with the tag and length of the whole."""
    described = TensorProto(name=weight.name, data_type=TensorProto.FLOAT, dims=weight.shape)
    inner: bytes = described.SerializeToString(deterministic=True) + tagged(_RAW_DATA, weight.nbytes)
    return tagged(_INITIALIZER, len(inner) + weight.nbytes) + inner
