"""safetensors: a JSON header and the tensors back to back, the widest numbers first, so that all are aligned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from trims.disk.exporters.reading import ModelReader
from trims.disk.exporters.target import Target
from trims.disk.importers.safetensors import DTYPES, METADATA_FILE
from trims.errors import BadInput
from trims.manifest import ITEM_SIZES

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_safetensors(target: Target, model: ModelReader, names: Sequence[str]) -> None:
    """One file with these tensors and the metadata that came with them."""
    ordered = sorted(names, key=lambda name: -ITEM_SIZES[model.spec(name).dtype])
    header: dict[str, Any] = {}
    metadata = _metadata(model)
    if metadata:
        header["__metadata__"] = metadata
    at = 0
    for name in ordered:
        spec = model.spec(name)
        if spec.dtype not in _NAMES or name == "__metadata__":
            why = f"safetensors cannot hold the tensor {name!r} of {spec.dtype}"
            raise BadInput("the model cannot be exported", why, "use --format h5")
        header[name] = {"dtype": _NAMES[spec.dtype], "shape": spec.shape, "data_offsets": [at, at + spec.nbytes]}
        at += spec.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    out = target.open()
    out.write(len(text).to_bytes(8, "little") + text)
    for name in ordered:
        out.write(model.tensor(name))


def _metadata(model: ModelReader) -> dict[str, str]:
    """The metadata of the file that the model was imported from; its `format` is what some loaders insist on."""
    found = model.origin.get("metadata")
    if any(file.name == METADATA_FILE for file in model.manifest.files):
        found = json.loads(model.blob(f"file {METADATA_FILE}"))
    if not isinstance(found, dict):
        return {"format": "pt"} if model.origin.get("format") == "torch" else {}
    return {key: value for key, value in found.items() if isinstance(value, str)}
