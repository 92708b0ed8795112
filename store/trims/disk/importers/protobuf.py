"""The wire form of ONNX files, taken apart without parsing it: where the bytes of weights lie in a mapped file.

A protobuf parser copies every weight, and none takes more than 2 GiB. So the file is walked once, field by field, and
the payload of each large tensor is cut out; what is left is small, and goes to the real parser. Only field numbers that
`onnx.proto` has are known here. Anything that is not well-formed is ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
CUT = 1024  # the smallest payload worth cutting out; the smallest tensor that leaves a graph

_MODEL_FIELDS = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES}
_IR_VERSION, _GRAPH, _OPSET = 1, 7, 8
_NODE, _INITIALIZER = 1, 5  # of GraphProto
_ATTRIBUTE, _ATTRIBUTE_TENSOR = 5, 5  # of NodeProto, of AttributeProto
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _DOUBLE_DATA = 2, 4, 9, 10  # of TensorProto
# Packed floats are what raw data would be, for these data types: FLOAT and COMPLEX64, DOUBLE and COMPLEX128.
_PAYLOADS = {_RAW_DATA: None, _FLOAT_DATA: (1, 14), _DOUBLE_DATA: (11, 15)}


class Field(NamedTuple):
    """One field: its own bytes are start..end; its contents `value`..end, or the number `value` for a varint."""

    number: int
    kind: int
    start: int
    value: int
    end: int


class Range(NamedTuple):
    """Bytes of the file."""

    offset: int
    nbytes: int


@dataclass
class Split:
    """A model without its large payloads. initializers: by index; constants: by (node, attribute) index."""

    rest: bytes = b""
    initializers: dict[int, Range] = field(default_factory=dict)
    constants: dict[tuple[int, int], Range] = field(default_factory=dict)


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[start:end]. Raises ValueError when it is none."""
    at = start
    while at < end:
        key, value = read_varint(data, at, end)
        kind = key & 7
        if kind == VARINT:
            number, stop = read_varint(data, value, end)
            yield Field(key >> 3, kind, at, number, stop)
        else:
            if kind == BYTES:
                length, value = read_varint(data, value, end)
            elif kind in (FIXED64, FIXED32):
                length = 8 if kind == FIXED64 else 4
            else:
                raise ValueError(f"wire type {kind} at byte {at}")
            stop = value + length
            if stop > end:
                raise ValueError(f"the field at byte {at} ends behind its message")
            yield Field(key >> 3, kind, at, value, stop)
        if key >> 3 == 0:
            raise ValueError(f"field 0 at byte {at}")
        at = stop


def read_varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at `at`, and where it ends."""
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError(f"a number at byte {at} has no end")


def varint(number: int) -> bytes:
    """`number` as protobuf writes it."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def tagged(number: int, nbytes: int) -> bytes:
    """What comes before `nbytes` of contents of the field `number`."""
    return varint(number << 3 | BYTES) + varint(nbytes)


def outline_of_model(data: memoryview) -> Field | None:
    """The graph's field when `data` is, end to end, a ModelProto with exactly one graph; None otherwise."""
    seen, graph = set(), None
    try:
        for found in fields(data, 0, len(data)):
            if _MODEL_FIELDS.get(found.number, found.kind) != found.kind or (found.number == _GRAPH and graph):
                return None
            seen.add(found.number)
            graph = found if found.number == _GRAPH else graph
    except ValueError:
        return None
    return graph if _IR_VERSION in seen or _OPSET in seen else None


def split_model(data: memoryview, graph: Field) -> Split:
    """Take the payloads of large initializers and Constant nodes out of a model. Raises ValueError."""
    split = Split()
    body: list[memoryview | bytes] = []
    nodes = initializers = 0
    for item in fields(data, graph.value, graph.end):
        if item.number == _INITIALIZER and item.kind == BYTES:
            rest, cut = _cut_tensor(data, item)
            if cut:
                split.initializers[initializers] = cut
            body.append(rest)
            initializers += 1
        elif item.number == _NODE and item.kind == BYTES:
            body.append(_cut_node(data, item, nodes, split))
            nodes += 1
        else:
            body.append(data[item.start : item.end])
    inner = b"".join(body)
    split.rest = b"".join((data[: graph.start], tagged(_GRAPH, len(inner)), inner, data[graph.end :]))
    return split


def _cut_node(data: memoryview, node: Field, index: int, split: Split) -> memoryview | bytes:
    """The node's field, without the payloads of its tensor attributes."""
    if node.end - node.value < CUT:
        return data[node.start : node.end]
    body: list[memoryview | bytes] = []
    attributes = 0
    for item in fields(data, node.value, node.end):
        if item.number != _ATTRIBUTE or item.kind != BYTES:
            body.append(data[item.start : item.end])
            continue
        inner: list[memoryview | bytes] = []
        for part in fields(data, item.value, item.end):
            rest: memoryview | bytes = data[part.start : part.end]
            cut = None
            if part.number == _ATTRIBUTE_TENSOR and part.kind == BYTES:
                rest, cut = _cut_tensor(data, part)
            if cut and (index, attributes) in split.constants:
                raise ValueError(f"an attribute at byte {item.start} has two tensors")
            if cut:
                split.constants[index, attributes] = cut
            inner.append(rest)
        body.append(_message(_ATTRIBUTE, inner))
        attributes += 1
    return _message(_NODE, body)


def _cut_tensor(data: memoryview, tensor: Field) -> tuple[memoryview | bytes, Range | None]:
    """The tensor's field without its payload, and where that is; the whole field and None when it is small or odd."""
    whole = data[tensor.start : tensor.end]
    if tensor.end - tensor.value < CUT:
        return whole, None
    items = list(fields(data, tensor.value, tensor.end))
    payloads = [item for item in items if item.number in _PAYLOADS]
    if len(payloads) != 1 or payloads[0].kind != BYTES:
        return whole, None
    payload = payloads[0]
    kinds = _PAYLOADS[payload.number]
    data_type = next((item.value for item in items if item.number == _DATA_TYPE), 0)
    if payload.end - payload.value < CUT or (kinds and data_type not in kinds):
        return whole, None
    rest: list[memoryview | bytes] = [data[tensor.value : payload.start], data[payload.end : tensor.end]]
    return _message(tensor.number, rest), Range(payload.value, payload.end - payload.value)


def _message(number: int, parts: list[memoryview | bytes]) -> bytes:
    """The field `number` with these contents."""
    return b"".join((tagged(number, sum(map(len, parts))), *parts))
