"""ONNX: a graph, and the weights taken out of it.

Large initializers of the main graph become tensors, in the order in which the graph uses them; so do the tensors of its
large Constant nodes, which are initializers by another name. The rest of the model is the graph: what is small stays in
it, because runtimes read shapes while they load, and so does what belongs to subgraphs, which runtimes do not take from
outside. Given the offsets of a region, the graph names every tensor as external data of one file called `trims`.

The file is mapped and never handed whole to protobuf; external data are views of files in the model's own directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

from trims.disk.importers.base import LIBRARY_ERRORS, MappedFile, Source, SourceTensor, bad, check_source, quoted
from trims.disk.importers.onnx_tensors import (
    DTYPES,
    Read,
    TensorReader,
    clear,
    inner_tensors,
    is_external,
    point,
    size_of,
)
from trims.disk.importers.protobuf import CUT, Split, outline_of_model, split_model
from trims.errors import BadInput
from trims.location import LOCATION

_MIN_IR_TO_LIFT = 4  # before, an initializer had to be an input of the graph, too
_MAX_GRAPH = 2**31 - 1
_MAX_DEPTH = 100  # what protobuf itself accepts


@dataclass(frozen=True, slots=True)
class _Weight:
    """A tensor that leaves the graph: its proto there, and how to read its bytes."""

    proto: TensorProto
    nbytes: int
    read: Read


def open_onnx(path: str) -> Source:
    """One model, with the files of its external data. Raises BadInput."""
    file = MappedFile(path)
    reader = TensorReader(file)
    try:
        graph = outline_of_model(file.data)
        if graph is None:
            raise bad(path, "it is no ONNX model, or not a whole one", "it may be cut")
        try:
            split = split_model(file.data, graph)
            model = ModelProto.FromString(split.rest)
            return check_source(path, _Importer(path, model, split, reader).source())
        except (*LIBRARY_ERRORS, DecodeError) as error:  # protobuf gives text that is no Unicode as bytes
            raise bad(path, f"it is no ONNX model, or a damaged one: {str(error)[:200]}") from None
    except BaseException:
        reader.close()
        raise


class _Importer:
    """Takes one parsed model apart."""

    def __init__(self, path: str, model: ModelProto, split: Split, reader: TensorReader) -> None:
        self._path, self._model, self._split, self._reader = path, model, split, reader

    def source(self) -> Source:
        weights = self._initializers()
        weights |= self._constants(weights)
        self._keep_the_rest(weights)
        order = [name for name in uses(self._model.graph) if name in weights]
        order += [name for name in weights if name not in set(order)]
        tensors = [
            SourceTensor(name, DTYPES[w.proto.data_type], tuple(w.proto.dims), w.read)
            for name, w in ((name, weights[name]) for name in order)
        ]
        files = self._reader.files()
        return Source("onnx", tensors, self._graph(weights), {}, self._origin(), [self._reader.close], files)

    def _initializers(self) -> dict[str, _Weight]:
        """The initializers that leave the graph, by name."""
        weights: dict[str, _Weight] = {}
        names: set[str] = set()
        for index, tensor in enumerate(self._model.graph.initializer):
            if not tensor.name or tensor.name in names:
                raise bad(
                    self._path, f"its graph has two initializers named {quoted(tensor.name)}, or one without a name"
                )
            names.add(tensor.name)
            weight = self._weight(tensor, index)
            if weight is not None:
                weights[tensor.name] = weight
        return weights

    def _weight(self, tensor: TensorProto, index: int) -> _Weight | None:
        """What leaves the graph of an initializer; its bytes are put back into it when it stays."""
        cut = self._split.initializers.get(index)
        read = self._reader.read(tensor, cut)
        nbytes = size_of(self._path, tensor)
        if read is not None and nbytes is not None and nbytes >= CUT:
            return _Weight(tensor, nbytes, read)
        if cut is not None:
            tensor.raw_data = bytes(self._reader.at(cut))
        elif is_external(tensor):
            self._inline(tensor)
        return None

    def _constants(self, taken: Mapping[str, _Weight]) -> dict[str, _Weight]:
        """The tensors of large Constant nodes, made initializers; their nodes are removed."""
        graph, weights, dropped = self._model.graph, {}, []
        outputs = {value.name for value in graph.output}
        named = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input} | outputs
        for node_index, node in enumerate(graph.node):
            liftable = self._model.ir_version >= _MIN_IR_TO_LIFT and _is_constant(node) and node.output[0] not in named
            for index, attribute in enumerate(node.attribute):
                cut = self._split.constants.get((node_index, index))
                if liftable and attribute.name == "value" and attribute.type == AttributeProto.TENSOR:
                    nbytes = size_of(self._path, attribute.t)
                    read = self._reader.read(attribute.t, cut) if nbytes is not None and nbytes >= CUT else None
                    if read is not None and nbytes is not None:
                        weights[node.output[0]] = _Weight(self._lift(node.output[0], attribute.t), nbytes, read)
                        named.add(node.output[0])
                        dropped.append(node_index)
                        continue
                if cut is not None:
                    attribute.t.raw_data = bytes(self._reader.at(cut))
        for node_index in reversed(dropped):
            del graph.node[node_index]
        return weights

    def _lift(self, name: str, tensor: TensorProto) -> TensorProto:
        """A new initializer of that name, with the type and shape of `tensor`."""
        lifted = self._model.graph.initializer.add()
        lifted.name, lifted.data_type = name, tensor.data_type
        lifted.dims.extend(tensor.dims)
        return lifted

    def _keep_the_rest(self, weights: Mapping[str, _Weight]) -> None:
        """Empty the tensors that leave; bring in what others have outside, since only `trims` will be there."""
        for weight in weights.values():
            clear(weight.proto)
        total = 0
        for tensor in inner_tensors(self._model):
            if is_external(tensor):
                total += self._inline(tensor)
                if total > _MAX_GRAPH:
                    raise bad(self._path, "the weights that have to stay in its graph are larger than 2 GiB")

    def _inline(self, tensor: TensorProto) -> int:
        """Replace the external data of `tensor` by the bytes themselves; returns how many."""
        view = self._reader.raw(tensor)
        if len(view) > _MAX_GRAPH:
            raise bad(self._path, f"tensor {quoted(tensor.name)} has to stay in the graph and is larger than 2 GiB")
        data = bytes(view)
        clear(tensor)
        tensor.raw_data = data
        return len(data)

    def _graph(self, weights: Mapping[str, _Weight]) -> Any:
        def graph(offsets: Mapping[str, int]) -> bytes:
            for name, weight in weights.items():
                point(weight.proto, LOCATION, offsets[name], weight.nbytes)
            try:
                return bytes(self._model.SerializeToString(deterministic=True))
            except (*LIBRARY_ERRORS, EncodeError) as error:
                raise bad(self._path, f"its graph cannot be written: {str(error)[:200]}") from None

        return graph

    def _origin(self) -> dict[str, Any]:
        model = self._model
        origin: dict[str, Any] = {
            "path": os.path.abspath(self._path),
            "nbytes": self._reader.nbytes(),
            "ir_version": model.ir_version,
            "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        }
        if model.producer_name:
            origin["producer"] = f"{model.producer_name} {model.producer_version}".strip()
        if self._reader.locations():
            origin["external"] = self._reader.locations()
        return origin


def uses(graph: GraphProto) -> list[str]:
    """The names that the nodes of `graph` and of its subgraphs use, in order of first use."""
    return list(dict.fromkeys(_uses(graph, 0)))


def _uses(graph: GraphProto, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        raise BadInput("the graph cannot be imported", f"its subgraphs are nested over {_MAX_DEPTH} deep")
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _uses(inner, depth + 1)


def _is_constant(node: NodeProto) -> bool:
    return node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.output) == 1
