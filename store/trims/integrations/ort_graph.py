"""ONNX graphs whose weights lie in a region: reading where they point, and pointing them elsewhere.

A tensor is external when its bytes are at (location, offset, length); ONNX Runtime takes external tensors from memory
only at the top level of a graph, so those of subgraphs (branches of If, bodies of Loop) always stay inside the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from trims.errors import BadInput
from trims.integrations.ort_key import LOCATION
from trims.manifest import ITEM_SIZES

_DTYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8",
    TensorProto.INT16: "int16",
    TensorProto.INT32: "int32",
    TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16",
    TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.COMPLEX64: "complex64",
    TensorProto.COMPLEX128: "complex128",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn",
    TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2",
    TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
}


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def span(tensor: TensorProto) -> tuple[int, int]:
    """(offset, nbytes) of an external tensor in its location. Raises BadInput."""
    fields = {field.key: field.value for field in tensor.external_data}
    try:
        return int(fields.get("offset", "0")), int(fields["length"])
    except (KeyError, ValueError):
        raise BadInput(f"tensor {tensor.name!r} of the graph is malformed", "its external data has no length") from None


def point(tensor: TensorProto, offset: int, nbytes: int) -> None:
    """Make `tensor` the region's bytes at (offset, nbytes)."""
    del tensor.external_data[:]
    for key, value in (("location", LOCATION), ("offset", str(offset)), ("length", str(nbytes))):
        field = tensor.external_data.add()
        field.key, field.value = key, value


def inline(tensor: TensorProto, data: bytes) -> None:
    """Put an external tensor's bytes into the graph."""
    del tensor.external_data[:]
    tensor.ClearField("data_location")
    tensor.raw_data = data


def stored_as(tensor: TensorProto, nbytes: int) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape) to store a tensor under: its own where a manifest has it, plain bytes otherwise (4-bit types)."""
    dtype, shape = _DTYPES.get(tensor.data_type), tuple(tensor.dims)
    if dtype is not None and prod(shape) * ITEM_SIZES[dtype] == nbytes:
        return dtype, shape
    return "uint8", (nbytes,)


def inner_tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of `graph` that is no top-level initializer: attributes, and all of its subgraphs."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from inner.initializer
                yield from inner_tensors(inner)


def inline_inner(model: ModelProto, read: Callable[[int, int], bytes]) -> None:
    """Put the external bytes of all but top-level tensors into the graph. `read(offset, nbytes)` fetches them."""
    for tensor in inner_tensors(model.graph):
        if is_external(tensor):
            inline(tensor, read(*span(tensor)))


def with_offsets(model: ModelProto, spans: Mapping[str, tuple[int, int]]) -> bytes:
    """The graph with its external tensors at these (offset, nbytes) of the region, by name."""
    for tensor in model.graph.initializer:
        if is_external(tensor):
            point(tensor, *spans[tensor.name])
    return bytes(model.SerializeToString())


def complete(skeleton: bytes, read: Callable[[int, int], bytes]) -> bytes:
    """The whole model in one piece, as it was imported. Raises BadInput over 2 GiB, which protobuf cannot hold."""
    model = onnx.load_from_string(skeleton)
    for tensor in (*model.graph.initializer, *inner_tensors(model.graph)):
        if is_external(tensor):
            inline(tensor, read(*span(tensor)))
    try:
        return bytes(model.SerializeToString())
    except ValueError:
        raise BadInput("the model cannot be put into one piece", "it is larger than 2 GiB") from None
