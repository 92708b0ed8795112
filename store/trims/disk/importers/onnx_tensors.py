"""The bytes of one ONNX tensor, wherever its writer put them: raw, in a typed field, or in another file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from trims.disk.importers.base import MappedFile, bad, inside, quoted
from trims.disk.importers.protobuf import Range
from trims.disk.known import PART, SourceFile
from trims.manifest import ITEM_SIZES, STORAGE

DTYPES = {
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8", TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.INT64: "int64",
    TensorProto.UINT8: "uint8", TensorProto.UINT16: "uint16", TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64",
    TensorProto.FLOAT16: "float16", TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn", TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2", TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    TensorProto.COMPLEX64: "complex64", TensorProto.COMPLEX128: "complex128",
}  # fmt: skip
"""The types that leave a graph; strings and those of less than a byte stay in it."""

_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
Read = Callable[[], memoryview]


def is_external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


class TensorReader:
    """Reads tensors of one model file; opens the files that external ones lie in, each once."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._others: dict[str, MappedFile] = {}

    def read(self, tensor: TensorProto, cut: Range | None) -> Read | None:
        """How to read the bytes of `tensor`, or None when its type stays in graphs. Raises BadInput.

        cut: where in the model file its payload lies, when it was taken out of the message.
        """
        nbytes = size_of(self._file.path, tensor)
        if nbytes is None:
            return None
        if is_external(tensor):
            return self._external(tensor, nbytes)
        if cut is not None:
            found, read = cut.nbytes, self._file.reader(*cut)
        else:
            data = tensor.raw_data if tensor.HasField("raw_data") else _typed(tensor)
            found, read = len(data), lambda: memoryview(data)
        if found != nbytes:
            raise bad(self._file.path, f"tensor {quoted(tensor.name)} needs {nbytes} bytes, it has {found}")
        return read

    def at(self, cut: Range) -> memoryview:
        """Bytes of the model file."""
        return self._file.view(*cut)

    def raw(self, tensor: TensorProto) -> memoryview:
        """The bytes of an external tensor of any type, as its own entry says. Raises BadInput."""
        return self._external(tensor, size_of(self._file.path, tensor))()

    def locations(self) -> list[str]:
        """The names of the other files, and so far only of those that were read from."""
        return sorted(self._others)

    def files(self) -> list[SourceFile]:
        """The model file, after those that it refers to."""
        parts = [SourceFile(file.path, file.key, PART) for file in self._others.values()]
        companions = {name: file.path for name, file in self._others.items()}
        return [*parts, SourceFile(self._file.path, self._file.key, "onnx", companions=companions)]

    def nbytes(self) -> int:
        """Bytes of all files together."""
        return self._file.nbytes + sum(file.nbytes for file in self._others.values())

    def close(self) -> None:
        for file in (self._file, *self._others.values()):
            file.close()

    def _external(self, tensor: TensorProto, nbytes: int | None) -> Read:
        path, name = self._file.path, tensor.name
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            offset = int(entries.get("offset", "0"))
            file = self._open(entries["location"])
            default = max(file.nbytes - offset, 0) if nbytes is None else nbytes
            length = int(entries.get("length", default))
        except (KeyError, ValueError):
            raise bad(path, f"tensor {quoted(name)} does not say where its data are") from None
        if nbytes is not None and length != nbytes:
            raise bad(path, f"tensor {quoted(name)} needs {nbytes} bytes, its external data have {length}")
        return file.reader(offset, length)

    def _open(self, location: str) -> MappedFile:
        if location not in self._others:
            target = inside(self._file.path, location, self._file.path)
            if os.path.realpath(self._file.path) == target:
                raise bad(self._file.path, "it names itself as the file of its external data")
            self._others[location] = MappedFile(target)
        return self._others[location]


def size_of(path: str, tensor: TensorProto) -> int | None:
    """Bytes of a tensor by its type and shape; None for a type that stays in graphs. Raises BadInput."""
    if any(n < 0 for n in tensor.dims):
        raise bad(path, f"tensor {quoted(tensor.name)} has a negative dimension")
    dtype = DTYPES.get(tensor.data_type)
    return None if dtype is None else prod(tensor.dims) * ITEM_SIZES[dtype]


def clear(tensor: TensorProto) -> None:
    """Take all data out of `tensor`."""
    for name in (*_TYPED, "raw_data", "external_data", "data_location"):
        tensor.ClearField(name)


def point(tensor: TensorProto, location: str, offset: int, nbytes: int) -> None:
    """Make `tensor` external, at these bytes of `location`."""
    clear(tensor)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(nbytes))):
        tensor.external_data.add(key=key, value=value)


def _typed(tensor: TensorProto) -> bytes:
    """The bytes of a tensor whose numbers are in the field of their type."""
    dtype = DTYPES[tensor.data_type]
    if dtype in ("float32", "complex64"):
        return np.array(tensor.float_data, "<f4").tobytes()
    if dtype in ("float64", "complex128"):
        return np.array(tensor.double_data, "<f8").tobytes()
    if dtype == "int64":
        return np.array(tensor.int64_data, "<i8").tobytes()
    if dtype in ("uint32", "uint64"):
        return np.array(tensor.uint64_data, "<u8").astype("<u4" if dtype == "uint32" else "<u8").tobytes()
    # All others are int32s whose low bits count: also for float16 and the like, of which these are the bits.
    storage = "uint16" if dtype == "float16" else "uint8" if dtype == "bool" else STORAGE.get(dtype, dtype)
    return np.array(tensor.int32_data, "<i4").astype(np.dtype(storage).newbyteorder("<")).tobytes()


def inner_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a model but the initializers of its main graph."""
    yield from _of_graph(model.graph, initializers=False)
    for function in model.functions:
        yield from _of_nodes(function.node)
        yield from _of_attributes(function.attribute_proto)
    for training in model.training_info:
        for graph in (training.initialization, training.algorithm):
            yield from _of_graph(graph)


def _of_graph(graph: GraphProto, initializers: bool = True) -> Iterator[TensorProto]:
    if initializers:
        yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: list[NodeProto]) -> Iterator[TensorProto]:
    for node in nodes:
        yield from _of_attributes(node.attribute)


def _of_attributes(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        for sparse in _both(attribute, "sparse_tensor", attribute.sparse_tensors):
            yield from (sparse.values, sparse.indices)
        for graph in _both(attribute, "g", attribute.graphs):
            yield from _of_graph(graph)


def _both(attribute: Any, one: str, many: Iterable[Any]) -> list[Any]:
    """The single value of an attribute, if it is set, and those of the list: a file may have both."""
    return [*([getattr(attribute, one)] if attribute.HasField(one) else []), *many]
