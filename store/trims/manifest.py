"""What a model is: its tensors, graph and side files, by digest; and where they lie in a region.

A manifest is canonical JSON in columns; the model's digest is the BLAKE3 of that JSON. The region layout is a pure
function of the manifest, so a graph can name its weights by offset without depending on any one file or process.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from trims.errors import BadInput, Damaged, StoreTooNew

FORMAT = "trims.manifest/1"

# 512: the widest of what readers ask for - GPU vector loads 256, JAX 64, O_DIRECT 512.
ALIGNMENT = 512

ITEM_SIZES = {
    "bool": 1,
    "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "float16": 2, "float32": 4, "float64": 8,
    "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "complex64": 8, "complex128": 16,
}  # fmt: skip
"""Bytes an item, for every dtype a tensor can have. Multi-byte items are little-endian."""

STORAGE = {"bfloat16": "uint16", **{name: "uint8" for name in ITEM_SIZES if name.startswith("float8")}}
"""The plain integer dtype that holds a dtype NumPy alone does not know."""


def align(offset: int, to: int = ALIGNMENT) -> int:
    """`offset` rounded up to a multiple of `to`."""
    return -(-offset // to) * to


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: `digest` is the BLAKE3 (hexadecimal) of its C-ordered little-endian bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * ITEM_SIZES[self.dtype]


@dataclass(frozen=True, slots=True)
class BlobSpec:
    """A run of bytes that is no tensor: the graph, or a side file."""

    name: str
    nbytes: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The identity of a model.

    tensors: in order of first use where the origin tells one, by name otherwise; the order is the region's.
    graph: the origin's computation without its weights, or None.
    files: side files (tokenizer, labels, the origin's own metadata), by name.
    domain: among whom this content is one model; "" in a store of one user. In another domain it is another model, so
    that nobody learns, or keeps alive, what others have by having the same.
    """

    tensors: tuple[TensorSpec, ...]
    graph: BlobSpec | None = None
    files: tuple[BlobSpec, ...] = ()
    domain: str = ""

    def to_dict(self) -> dict[str, object]:
        """The columnar JSON form: one list a column parses four times faster than one object a tensor."""
        return {
            "format": FORMAT,
            "names": [t.name for t in self.tensors],
            "dtypes": [t.dtype for t in self.tensors],
            "shapes": [list(t.shape) for t in self.tensors],
            "digests": [t.digest for t in self.tensors],
            "graph": [self.graph.nbytes, self.graph.digest] if self.graph else None,
            "files": {f.name: [f.nbytes, f.digest] for f in self.files},
            **({"domain": self.domain} if self.domain else {}),
        }

    @cached_property
    def canonical(self) -> bytes:
        """The bytes whose BLAKE3 is the model's digest: sorted keys, no spaces, ASCII only."""
        return canonical_json(self.to_dict())

    @cached_property
    def digest(self) -> str:
        from blake3 import blake3  # an import of its own: readers of a manifest do not hash it

        return str(blake3(self.canonical).hexdigest())

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors as their users see them; tied ones count each time."""
        return sum(t.nbytes for t in self.tensors)

    @cached_property
    def layout(self) -> RegionLayout:
        return region_layout(self)

    @classmethod
    def from_dict(cls, data: object) -> Manifest:
        """The manifest of a parsed JSON form. Raises StoreTooNew or Damaged."""
        if not isinstance(data, dict) or not isinstance(data.get("format"), str):
            raise Damaged("a manifest is damaged", "it is no manifest")
        if data["format"] != FORMAT:
            raise StoreTooNew(
                f"a manifest has format {data['format']!r}", f"this trims reads {FORMAT!r}", "upgrade trims"
            )
        try:
            columns = (data["names"], data["dtypes"], data["shapes"], data["digests"])
            tensors = tuple(TensorSpec(n, d, tuple(s), h) for n, d, s, h in zip(*columns, strict=True) if ITEM_SIZES[d])
            graph = BlobSpec("graph", *data["graph"]) if data["graph"] else None
            files = tuple(BlobSpec(name, *value) for name, value in data["files"].items())
            domain = str(data.get("domain", ""))
            if any(type(n) is not int or n < 0 for t in tensors for n in t.shape):
                raise ValueError("a shape is not of whole numbers")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Damaged("a manifest is damaged", f"a field is missing or of the wrong kind: {error}") from None
        return cls(tensors, graph, files, domain)


@dataclass(frozen=True)
class RegionLayout:
    """Where a model's bytes lie in its region. Offsets and sizes in bytes, offsets from the region's start.

    tensors: offset of every tensor by name; tied tensors share one.
    graph, files: (offset, nbytes).
    stored: (name, offset, nbytes) of what is really there, in order, each once.
    nbytes: length of the span, a multiple of the alignment.
    """

    tensors: dict[str, int]
    graph: tuple[int, int] | None
    files: dict[str, tuple[int, int]]
    stored: tuple[tuple[str, int, int], ...]
    nbytes: int

    def holder(self, offset: int) -> str | None:
        """The name of the tensor or blob whose bytes include `offset`, or None between them."""
        for name, start, nbytes in self.stored:
            if start <= offset < start + nbytes:
                return name
        return None


def region_layout(manifest: Manifest) -> RegionLayout:
    """Tensors in manifest order, then the graph, then files by name; each at the next multiple of ALIGNMENT.

    Tensors of the same bytes, dtype and shape are stored once, at the place of the first of them.
    """
    at = 0
    seen: dict[tuple[str, str, tuple[int, ...]], int] = {}
    tensors: dict[str, int] = {}
    stored: list[tuple[str, int, int]] = []

    def put(name: str, nbytes: int) -> int:
        nonlocal at
        offset, at = at, align(at + nbytes)
        stored.append((name, offset, nbytes))
        return offset

    for t in manifest.tensors:
        content = (t.digest, t.dtype, t.shape)
        if content not in seen:
            seen[content] = put(t.name, t.nbytes)
        tensors[t.name] = seen[content]
    graph = (put("graph", manifest.graph.nbytes), manifest.graph.nbytes) if manifest.graph else None
    files = {f.name: (put(f"file {f.name}", f.nbytes), f.nbytes) for f in sorted(manifest.files, key=lambda f: f.name)}
    return RegionLayout(tensors, graph, files, tuple(stored), at)


class RegionTable:
    """A region's own table of contents, as a reader parses it from the region's tail: no hashing, no checks, columns.

    It is the manifest's columns plus `offsets`; `graph` and `files` are (offset, nbytes).
    """

    __slots__ = ("data", "files", "graph", "index")

    def __init__(self, data: dict[str, object]) -> None:
        self.data = data
        names: list[str] = data["names"]  # type: ignore[assignment]
        self.index: dict[str, int] = dict(zip(names, range(len(names)), strict=True))
        self.graph: list[int] | None = data["graph_at"]  # type: ignore[assignment]
        self.files: dict[str, list[int]] = data["files_at"]  # type: ignore[assignment]

    def rows(self) -> Iterator[tuple[str, str, list[int], int]]:
        """(name, dtype, shape, offset) of every tensor, in region order."""
        d = self.data
        columns: list[list[Any]] = [d[key] for key in ("names", "dtypes", "shapes", "offsets")]  # type: ignore[misc]
        return zip(*columns, strict=True)

    @property
    def manifest(self) -> Manifest:
        return Manifest.from_dict(self.data)


def table_bytes(manifest: Manifest) -> bytes:
    """The region table of `manifest`, as JSON: appended to the span when a region is filled."""
    layout = manifest.layout
    data = manifest.to_dict()
    data["digest"] = manifest.digest
    data["offsets"] = [layout.tensors[t.name] for t in manifest.tensors]
    data["graph_at"] = layout.graph
    data["files_at"] = layout.files
    return canonical_json(data)


def parse_table(data: bytes | memoryview) -> RegionTable:
    """The inverse of `table_bytes`. The bytes come from a sealed region or a verified sidecar, so they are trusted."""
    return RegionTable(json.loads(bytes(data)))


def canonical_json(data: object) -> bytes:
    """One byte sequence for one value: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def check_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Raise BadInput unless a tensor of this name, dtype and shape can be stored."""
    if dtype not in ITEM_SIZES:
        raise BadInput(f"tensor {name!r} cannot be stored", f"its dtype {dtype!r} is not supported")
    if len(shape) > 32 or any(n < 0 for n in shape):
        raise BadInput(
            f"tensor {name!r} cannot be stored", f"its shape {list(shape)} has over 32 or negative dimensions"
        )
    if not name or len(name.encode("utf-8", "surrogatepass")) > 1024:
        raise BadInput(f"tensor {name!r} cannot be stored", "its name is empty or longer than 1024 bytes")
