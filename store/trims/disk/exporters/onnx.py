"""ONNX: the graph of the store with its weights put back where they came from.

The graph is rewritten field by field, never parsed: a tensor that points into the region gets its bytes instead,
written straight from the container. A model over protobuf's 2 GiB keeps its weights in a second file beside it,
`NAME.data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trims.disk.exporters.reading import ModelReader
from trims.disk.exporters.target import Target
from trims.disk.importers import protobuf
from trims.disk.importers.protobuf import BYTES, Field
from trims.errors import BadInput, Damaged, UsageError
from trims.manifest import align

MAX_INLINE = 2**31 - 1
_PAGE = 4096  # so that ONNX Runtime can map a tensor of the second file
_GRAPH, _INITIALIZER = 7, 5
_NAME, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 8, 9, 13, 14  # of TensorProto
_EXTERNAL = b"\x70\x01"  # data_location: EXTERNAL

External = Mapping[str, bytes] | None
Part = bytes | memoryview | str
"""Bytes to write, or the name of the tensor whose bytes to write."""


def write_onnx(target: Target, model: ModelReader, names: Sequence[str]) -> None:
    """The whole model, in one file where that can be."""
    skeleton = model.graph()
    if skeleton is None:
        raise BadInput("the model cannot be exported", "it was imported without a graph", "use --format safetensors")
    sizes = {name: model.spec(name).nbytes for name in names}
    try:
        if len(skeleton) + sum(sizes.values()) + 64 * len(sizes) <= MAX_INLINE:
            _write(target, model, _rewrite(memoryview(skeleton), sizes, None))
        else:
            _write_external(target, model, memoryview(skeleton), sizes)
    except (ValueError, KeyError) as error:
        raise Damaged("the graph is damaged", f"it cannot be taken apart: {error}", "import the model again") from None


def _write(target: Target, model: ModelReader, parts: list[Part]) -> None:
    out = target.open()
    for part in parts:
        out.write(model.tensor(part) if isinstance(part, str) else part)


def _write_external(target: Target, model: ModelReader, skeleton: memoryview, sizes: Mapping[str, int]) -> None:
    """Graph and weights in two files."""
    if target.is_stream:
        raise UsageError("the model cannot be written to a stream", "it is over 2 GiB, which takes two files", "use -o")
    out = target.open(".data")
    offsets, at = {}, 0
    for name, nbytes in sizes.items():
        offsets[name] = at
        out.write(model.tensor(name))
        at = align(at + nbytes, _PAGE)
        out.seek(at)
    location = f"{target.name}.data"
    entries = {name: _external(location, offsets[name], nbytes) for name, nbytes in sizes.items()}
    _write(target, model, _rewrite(skeleton, sizes, entries))


def _external(location: str, offset: int, nbytes: int) -> bytes:
    """The fields of a tensor whose data are elsewhere."""
    fields = b""
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(nbytes))):
        texts = key.encode(), value.encode("utf-8", "surrogateescape")
        entry = b"".join(protobuf.tagged(n, len(text)) + text for n, text in enumerate(texts, 1))
        fields += protobuf.tagged(_EXTERNAL_DATA, len(entry)) + entry
    return fields + _EXTERNAL


def _rewrite(data: memoryview, sizes: Mapping[str, int], external: External) -> list[Part]:
    """The model with the bytes of its tensors in it, or with `external` in their place."""
    graph = protobuf.outline_of_model(data)
    if graph is None:
        raise ValueError("it is no ONNX model")
    body: list[Part] = []
    for item in protobuf.fields(data, graph.value, graph.end):
        if item.number == _INITIALIZER and item.kind == BYTES:
            body += _tensor(data, item, sizes, external)
        else:
            body.append(data[item.start : item.end])
    total = _nbytes(body, sizes)
    return [data[: graph.start], protobuf.tagged(_GRAPH, total), *body, data[graph.end :]]


def _tensor(
    data: memoryview, item: Field, sizes: Mapping[str, int], external: Mapping[str, bytes] | None
) -> list[Part]:
    """One initializer."""
    inner = list(protobuf.fields(data, item.value, item.end))
    if not any(f.number == _EXTERNAL_DATA for f in inner):
        return [data[item.start : item.end]]
    name = next(bytes(data[f.value : f.end]).decode() for f in inner if f.number == _NAME)
    parts: list[Part] = [
        data[f.start : f.end] for f in inner if f.number not in (_EXTERNAL_DATA, _DATA_LOCATION, _RAW_DATA)
    ]
    if external is None:
        parts += [protobuf.tagged(_RAW_DATA, sizes[name]), name]
    else:
        parts.append(external[name])
    return [protobuf.tagged(_INITIALIZER, _nbytes(parts, sizes)), *parts]


def _nbytes(parts: Sequence[Part], sizes: Mapping[str, int]) -> int:
    return sum(sizes[part] if isinstance(part, str) else len(part) for part in parts)
