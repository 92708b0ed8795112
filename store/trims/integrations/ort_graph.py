"""ONNX graphs whose weights lie in a region: reading where they point, and pointing them elsewhere.

A tensor is external when its bytes are at (location, offset, length); ONNX Runtime takes external tensors from memory
only at the top level of a graph, so those of subgraphs (branches of If, bodies of Loop) always stay inside the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import onnx
from onnx import ModelProto, TensorProto

from trims.disk.importers.onnx_tensors import DTYPES, clear, inner_tensors, is_external, point
from trims.errors import BadInput
from trims.location import LOCATION
from trims.manifest import ITEM_SIZES

Read = Callable[[int, int], bytes]
"""Fetches the bytes at (offset, nbytes) of where external tensors point."""


def external_spans(model: ModelProto) -> dict[str, tuple[int, int]]:
    """(offset, nbytes) of every external top-level tensor, by name. Raises BadInput."""
    return {t.name: span(t) for t in model.graph.initializer if is_external(t)}


def span(tensor: TensorProto) -> tuple[int, int]:
    """(offset, nbytes) of an external tensor in its location. Raises BadInput."""
    fields = {field.key: field.value for field in tensor.external_data}
    try:
        return int(fields.get("offset", "0")), int(fields["length"])
    except (KeyError, ValueError):
        raise BadInput(f"tensor {tensor.name!r} of the graph is malformed", "its external data has no length") from None


def stored_as(tensor: TensorProto, nbytes: int) -> tuple[str, tuple[int, ...]]:
    """(dtype, shape) to store a tensor under: its own where a manifest has it, plain bytes otherwise (4-bit types)."""
    dtype, shape = DTYPES.get(tensor.data_type), tuple(tensor.dims)
    if dtype is not None and prod(shape) * ITEM_SIZES[dtype] == nbytes:
        return dtype, shape
    return "uint8", (nbytes,)


def inline_inner(model: ModelProto, read: Read) -> None:
    """Put the external bytes of all but top-level tensors into the graph."""
    for tensor in inner_tensors(model):
        inline(tensor, read)


def with_offsets(model: ModelProto, spans: Mapping[str, tuple[int, int]]) -> bytes:
    """The graph with its external tensors at these (offset, nbytes) of the region, by name."""
    for tensor in model.graph.initializer:
        if is_external(tensor):
            point(tensor, LOCATION, *spans[tensor.name])
    return bytes(model.SerializeToString())


def complete(skeleton: bytes, read: Read) -> bytes:
    """The whole model in one piece, as it was imported. Raises BadInput over 2 GiB, which protobuf cannot hold."""
    model = onnx.load_from_string(skeleton)
    for tensor in (*model.graph.initializer, *inner_tensors(model)):
        inline(tensor, read)
    try:
        return bytes(model.SerializeToString())
    except ValueError:
        raise BadInput("the model cannot be put into one piece", "it is larger than 2 GiB") from None


def inline(tensor: TensorProto, read: Read) -> None:
    """Put an external tensor's bytes into the graph."""
    if is_external(tensor):
        data = read(*span(tensor))
        clear(tensor)
        tensor.raw_data = data
