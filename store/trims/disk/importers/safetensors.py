"""safetensors: eight bytes of header length, a JSON header, then all tensors back to back.

The header is believed only when it leaves no room for tricks: every byte of the data belongs to exactly one tensor, as
its dtype and shape demand, and no key comes twice. Tensors are views of the mapped file. A sharded model is an index
(`*.index.json`) that says which file has which tensor; its files must be its own directory's.
"""

from __future__ import annotations

import json
import os
from math import prod
from typing import Any

from trims.disk.importers.base import (
    LIBRARY_ERRORS,
    MAX_HEADER,
    MappedFile,
    Source,
    SourceTensor,
    bad,
    check_source,
    inside,
    quoted,
    read_small,
)
from trims.disk.known import SourceFile
from trims.errors import BadInput
from trims.manifest import ITEM_SIZES

DTYPES = {
    "BOOL": "bool",
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
METADATA_FILE = "safetensors.metadata.json"
"""The side file that a file's `__metadata__` becomes when it is too large for the origin."""

_MAX_ORIGIN = 1 << 16
_MAX_SHARDS = 10_000


def looks_like(file: MappedFile) -> bool:
    """Whether a file begins as this format does."""
    if file.nbytes < 10:
        return False
    return file.data[8] == ord("{") and int.from_bytes(file.data[:8], "little") >= 2


def open_safetensors(path: str) -> Source:
    """One file. Raises BadInput."""
    file = MappedFile(path)
    try:
        tensors, metadata = read_tensors(file)
        origin: dict[str, Any] = {"path": os.path.abspath(path), "nbytes": file.nbytes}
        on_disk = [SourceFile(path, file.key, "safetensors", extra=_extra(file))]
        source = Source("safetensors", tensors, origin=origin, closers=[file.close], on_disk=on_disk)
        _keep_metadata(source, metadata)
        return check_source(path, source)
    except BaseException:
        file.close()
        raise


def open_index(path: str) -> Source:
    """A sharded model by its index. Raises BadInput."""
    weight_map, metadata = _read_index(path)
    shards: dict[str, MappedFile] = {}
    tensors: list[SourceTensor] = []
    on_disk: list[SourceFile] = []
    try:
        for name in sorted(set(weight_map.values())):
            shard = MappedFile(inside(path, name, path))
            shards[name] = shard
            found, own = read_tensors(shard)
            tensors += found
            metadata = metadata or own
            names = {tensor.name: tensor.name for tensor in found}
            on_disk.append(SourceFile(shard.path, shard.key, "safetensors", names, extra=_extra(shard)))
            missing = {n for n, where in weight_map.items() if where == name} - {t.name for t in found}
            if missing:
                raise bad(path, f"{name} lacks the tensor {min(missing)!r}", "the model is not whole")
        origin: dict[str, Any] = {
            "path": os.path.abspath(path),
            "nbytes": sum(shard.nbytes for shard in shards.values()),
            "shards": sorted(shards),
        }
        tensors.sort(key=lambda tensor: tensor.name)
        closers = [shard.close for shard in shards.values()]
        source = Source("safetensors", tensors, origin=origin, closers=closers, on_disk=on_disk)
        _keep_metadata(source, metadata)
        return check_source(path, source)
    except BaseException:
        for shard in shards.values():
            shard.close()
        raise


def read_tensors(file: MappedFile) -> tuple[list[SourceTensor], dict[str, str]]:
    """The tensors of one file, by name, and its metadata. Raises BadInput."""
    header, data_start = _header(file)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise bad(file.path, "its __metadata__ is not text by name")
    spans: list[tuple[int, int, str]] = []
    tensors = []
    for name, fields in header.items():
        dtype, shape, begin, end = _entry(file.path, name, fields)
        spans.append((begin, end, name))
        tensors.append(SourceTensor(name, dtype, shape, file.reader(data_start + begin, end - begin)))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            raise bad(file.path, f"tensor {quoted(name)} lies at {begin}, the data before it end at {at}")
        at = end
    if data_start + at != file.nbytes:
        raise bad(file.path, f"its tensors end at {data_start + at}, the file at {file.nbytes}", "it may be cut")
    return sorted(tensors, key=lambda tensor: tensor.name), metadata


def _extra(file: MappedFile) -> dict[str, Any]:
    """What the library tells of a file that is whole, beside its tensors: its metadata, the order of its names."""
    header, _ = _header(file)
    metadata = header.pop("__metadata__", None)
    return {"metadata": metadata, "names": sorted(header, key=lambda name: (header[name]["data_offsets"], name))}


def _header(file: MappedFile) -> tuple[dict[str, Any], int]:
    """The parsed header, and where the data begin."""
    length = int.from_bytes(file.view(0, 8), "little")
    if length > MAX_HEADER:
        raise bad(file.path, f"its header claims {length} bytes, over {MAX_HEADER}", "is it a safetensors file?")
    header = parse_json(file.path, bytes(file.view(8, length)))
    if not isinstance(header, dict):
        raise bad(file.path, "its header is no JSON object")
    return header, 8 + length


def _entry(path: str, name: str, fields: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one tensor, consistent with each other."""
    try:
        kind, shape, (begin, end) = fields["dtype"], fields["shape"], fields["data_offsets"]
        numbers = [*shape, begin, end]
    except (TypeError, KeyError, ValueError):
        raise bad(path, f"the header of tensor {quoted(name)} is malformed") from None
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in numbers):
        raise bad(path, f"tensor {quoted(name)} has a size or offset that is no whole number")
    if not isinstance(kind, str) or kind not in DTYPES:
        raise bad(path, f"tensor {quoted(name)} has the dtype {kind!r}, which is not supported")
    need = prod(shape) * ITEM_SIZES[DTYPES[kind]]
    if end - begin != need:
        raise bad(path, f"tensor {quoted(name)} needs {need} bytes, its offsets give {end - begin}")
    return DTYPES[kind], tuple(shape), begin, end


def _read_index(path: str) -> tuple[dict[str, str], dict[str, str]]:
    index = parse_json(path, read_small(path, MAX_HEADER))
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise bad(path, "it is no index of a sharded model: it has no weight_map")
    if len(set(weight_map.values())) > _MAX_SHARDS:
        raise bad(path, f"it names over {_MAX_SHARDS} files")
    given = index.get("metadata")
    given = given if isinstance(given, dict) else {}
    return weight_map, {k: v for k, v in given.items() if isinstance(v, str)}


def parse_json(path: str, text: bytes) -> Any:
    """The JSON value in `text`, in which no key comes twice. Raises BadInput."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise bad(path, f"the key {twice[:200]!r} comes twice")
        return made

    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    except BadInput:
        raise
    except LIBRARY_ERRORS as error:
        raise bad(path, f"its JSON cannot be parsed: {str(error)[:200]}") from None


def _keep_metadata(source: Source, metadata: dict[str, str]) -> None:
    """Keep a file's metadata: with the origin, or as a side file when that would make every listing slow."""
    if not metadata:
        return
    text = json.dumps(metadata, sort_keys=True)
    if len(text) <= _MAX_ORIGIN:
        source.origin["metadata"] = metadata
    else:
        source.files[METADATA_FILE] = text.encode()
