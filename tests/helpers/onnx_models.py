"""ONNX models as sources to import: what the importer makes of a file, made here of a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from helpers.sources import CodeSource, tensor

EXTERNAL = 1024


def onnx_source(model: onnx.ModelProto) -> CodeSource:
    """Top-level initializers as tensors; the graph names the larger ones by their region offset."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}

    def graph(offsets: Mapping[str, int]) -> bytes:
        skeleton = onnx.ModelProto()
        skeleton.CopyFrom(model)
        for proto in skeleton.graph.initializer:
            nbytes = arrays[proto.name].nbytes
            if nbytes >= EXTERNAL:
                for field in ("raw_data", "float_data", "int32_data", "int64_data"):
                    proto.ClearField(field)
                proto.data_location = TensorProto.EXTERNAL
                for key, value in (("location", "trims"), ("offset", offsets[proto.name]), ("length", nbytes)):
                    proto.external_data.add(key=key, value=str(value))
        return bytes(skeleton.SerializeToString())

    return CodeSource([tensor(name, array) for name, array in arrays.items()], graph=graph, format="onnx")


def branches(seed: int = 0) -> onnx.ModelProto:
    """A model of one `If` whose branches have weights of their own, large enough to be external. Inputs `x`, `c`."""
    rng = np.random.default_rng(seed)

    def weight(name: str) -> TensorProto:
        return numpy_helper.from_array(rng.standard_normal((32, 32)).astype(np.float32), name)

    def branch(name: str) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["h", f"{name}.w"], [f"{name}.y"])
        result = helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None)
        return helper.make_graph([node], name, [], [result], [weight(f"{name}.w")])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branch("then"), else_branch=branch("else")),
    ]
    graph = helper.make_graph(
        nodes,
        "branches",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 32]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 32])],
        [weight("w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def wide(width: int = 1024) -> onnx.ModelProto:
    """Four convolutions of `width` squared floats, 4 MiB each by default: large beside everything else. Input `x`."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.standard_normal((width, width, 1, 1)) / width).astype(np.float32), f"w{n}")
        for n in range(4)
    ]
    names = ["x", "a", "b", "c", "y"]
    nodes = [helper.make_node("Conv", [names[n], f"w{n}"], [names[n + 1]]) for n in range(4)]
    shape = [1, width, 2, 2]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(session: Any, **inputs: np.ndarray) -> list[bytes]:
    """The outputs of a session, as bytes: equal means bit-identical."""
    return [value.tobytes() for value in session.run(None, inputs)]
