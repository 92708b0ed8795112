"""What is known of the content of a file, as values, and as the records that `disk.sources` keeps of them.

Named tuples, as in `disk.catalog` and `disk.store`: a dataclass costs each process that loads a model 0.6 ms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from trims.disk.fingerprint import FileKey
from trims.errors import Damaged

FORMAT = "trims.source/1"
PART = "part"
MAX_RECORD = 64 << 20


class Known(NamedTuple):
    """What the store knows of one file's content.

    file: BLAKE3 of the whole file, hex. kind: onnx, safetensors, npz, npy, torch, or part: a file that another one
    needs. model: digest of what was imported from it; ref: its name then, for messages only. tensors: name in the file
    to name in the model; None when they are the same, all of them. companions: (path relative to the file's directory,
    BLAKE3) of the files that it cannot be read without. extra: by kind, see trims-store(5).
    """

    file: str
    size: int
    kind: str
    model: str
    ref: str
    tensors: dict[str, str] | None = None
    companions: tuple[tuple[str, str], ...] = ()
    extra: dict[str, Any] = {}  # one for all: it is read only


class SourceFile(NamedTuple):
    """A file that an importer reads. key: of what it opened, before it read; None when that was not settled.

    companions: name by which the file calls another one, to the path where that was found. The rest is as in `Known`.
    """

    path: str
    key: FileKey | None
    kind: str
    tensors: dict[str, str] | None = None
    companions: dict[str, str] = {}
    extra: dict[str, Any] = {}  # one for all: it is read only


class Newer(ValueError):
    """A record that a newer trims wrote."""


def read(path: str) -> dict[str, Any]:
    """The fields of a record. Raises OSError, Damaged, Newer."""
    with open(path, "rb") as file:
        data = file.read(MAX_RECORD + 1)
    from trims.disk import sealed  # not before there is something to read

    fields = sealed.unseal(data, path)
    if fields.get("format") != FORMAT:
        raise Newer(f"{path} was made by a newer trims")
    return fields


def parse(fields: dict[str, Any]) -> list[Known]:
    """What a content is, the latest first. Raises Damaged."""
    try:
        return [
            Known(
                fields["file"],
                fields["size"],
                **{**one, "companions": tuple((name, digest) for name, digest in one["companions"])},
            )
            for one in fields["models"]
        ]
    except (TypeError, ValueError, LookupError) as error:
        raise Damaged("a record of a source is damaged", str(error)) from None


def fields_of(known: list[Known]) -> dict[str, Any]:
    """The inverse of `parse`."""
    models = [
        {
            "kind": one.kind, "model": one.model, "ref": one.ref, "tensors": one.tensors,
            "companions": [list(pair) for pair in one.companions], "extra": one.extra,
        }
        for one in known
    ]  # fmt: skip
    return {"file": known[0].file, "format": FORMAT, "models": models, "size": known[0].size}
