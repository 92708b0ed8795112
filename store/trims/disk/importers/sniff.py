"""What a file is, by its content: magic bytes where the format has some, its whole outline where it has none.

ONNX has no magic. A file is taken for one when its bytes are, end to end, a protobuf message with the fields of a
ModelProto and one graph. Telling formats apart costs a few page reads, whatever the size of the file.
"""

from __future__ import annotations

from trims.disk.importers import safetensors, zipped
from trims.disk.importers.base import MappedFile, bad
from trims.disk.importers.protobuf import outline_of_model
from trims.errors import BadInput

H5_MAGIC = b"\x89HDF\r\n\x1a\n"
NPY_MAGIC = b"\x93NUMPY"
LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
"""A pickle of torch.serialization.MAGIC_NUMBER, with which the format before the zip archive begins."""


def sniff(path: str) -> str | None:
    """The format of the file at `path` (`index` for that of a sharded model), or None. Raises BadInput."""
    file = MappedFile(path)
    try:
        if file.nbytes == 0:
            raise bad(path, "it is empty")
        return _sniff(file)
    finally:
        file.close()


def _sniff(file: MappedFile) -> str | None:
    head = bytes(file.data[:16])
    if head.startswith(NPY_MAGIC):
        return "npy"
    if _is_h5(file):
        return "h5"
    if head.startswith(LEGACY_TORCH):
        return "torch"
    if head.startswith(b"PK"):
        return _of_zip(file)
    if safetensors.looks_like(file) and int.from_bytes(head[:8], "little") < file.nbytes:
        return "safetensors"
    if head.lstrip().startswith(b"{"):
        return "index"
    if outline_of_model(file.data) is not None:
        return "onnx"
    if safetensors.looks_like(file):
        return "safetensors"  # a cut one, more likely than anything else: its reader says so
    if head.startswith(b"\x80") and file.data[-1] == ord("."):
        raise bad(file.path, "it is a pickle, which can run any code", "save it as safetensors")
    return None


def _is_h5(file: MappedFile) -> bool:
    """The signature is at 0, 512, 1024, 2048, ...: a user block may come before it."""
    at = 0
    while at + 8 <= file.nbytes:
        if file.data[at : at + 8] == H5_MAGIC:
            return True
        at = at * 2 or 512
    return False


def _of_zip(file: MappedFile) -> str | None:
    names = [member.name for member in zipped.read_members(file)]
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return "torch"
    if any(name.endswith(".npy") for name in names) or not names:
        return "npz"
    raise BadInput(
        f"cannot import {file.path}",
        f"it is a zip archive without arrays or a checkpoint: it holds {names[0][:200]!r}",
        "unpack it, and import the model file in it",
    )
