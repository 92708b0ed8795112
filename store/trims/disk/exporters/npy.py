"""npz and npy, as NumPy reads them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import numpy as np

from trims.disk.exporters.reading import ModelReader
from trims.disk.exporters.target import Target
from trims.errors import BadInput, UsageError
from trims.manifest import STORAGE, TensorSpec

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same model gives the same file


def write_npz(target: Target, model: ModelReader, names: Sequence[str]) -> None:
    """An archive with one array a tensor, not compressed, so that it can be mapped."""
    for name in names:
        if "\0" in name:
            raise BadInput("the model cannot be exported", f"no archive can hold the name {name!r}", "use --format h5")
    headers = [_header(model.spec(name)) for name in names]
    with zipfile.ZipFile(target.open(), "w", zipfile.ZIP_STORED) as archive:
        for name, header in zip(names, headers, strict=True):
            info = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(info, "w", force_zip64=True) as member:
                member.write(header)
                member.write(model.tensor(name))


def write_npy(target: Target, model: ModelReader, names: Sequence[str]) -> None:
    """One array."""
    if len(names) != 1:
        raise UsageError(
            "an npy file has one array", f"{len(names)} tensors are chosen", "use --tensor, or --format npz"
        )
    header = _header(model.spec(names[0]))
    out = target.open()
    out.write(header)
    out.write(model.tensor(names[0]))


def _header(spec: TensorSpec) -> bytes:
    """What comes before the data of an array."""
    if spec.dtype in STORAGE:
        why = f"NumPy cannot hold the tensor {spec.name!r} of {spec.dtype}"
        raise BadInput("the model cannot be exported", why, "use --format safetensors")
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": spec.shape}
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, fields)
    return head.getvalue()
