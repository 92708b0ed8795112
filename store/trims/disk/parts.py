"""What a span holds, in order: tensors that are stored (tied ones once), the graph, the side files."""

from __future__ import annotations

from typing import NamedTuple

from trims.disk.sidecar import Sidecar
from trims.manifest import Manifest, TensorSpec

CONTAINER = "container"
"""The name of what is no tensor, graph or file: padding, HDF5's own bytes, the file as a whole."""


class Part(NamedTuple):
    """One run of the span. name: of the tensor, `graph` or `file NAME`; digest: its BLAKE3; dtype: "" for bytes."""

    name: str
    offset: int
    nbytes: int
    digest: str
    dtype: str


def parts(manifest: Manifest) -> list[Part]:
    """The parts of a model, in span order. Names alone do not tell a tensor called `graph` from the graph."""
    layout = manifest.layout
    found: list[Part] = []
    seen: set[tuple[str, str, tuple[int, ...]]] = set()
    for spec in manifest.tensors:
        if content_of(spec) not in seen:
            seen.add(content_of(spec))
            found.append(Part(spec.name, layout.tensors[spec.name], spec.nbytes, spec.digest, spec.dtype))
    if manifest.graph and layout.graph:
        found.append(Part("graph", *layout.graph, manifest.graph.digest, ""))
    found += [
        Part(f"file {file.name}", *layout.files[file.name], file.digest, "")
        for file in sorted(manifest.files, key=lambda file: file.name)
    ]
    return found


def content_of(spec: TensorSpec) -> tuple[str, str, tuple[int, ...]]:
    """What makes two tensors tied: same bytes, same dtype, same shape."""
    return spec.digest, spec.dtype, spec.shape


def parts_of_piece(sidecar: Sidecar, index: int) -> list[Part]:
    """The parts that have bytes in one piece."""
    start, nbytes = sidecar.piece(index)
    return [
        part for part in parts(sidecar.manifest) if part.offset < start + nbytes and start < part.offset + part.nbytes
    ]
