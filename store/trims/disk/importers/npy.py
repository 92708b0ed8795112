"""npy and npz: NumPy's arrays, one a file, and several in a zip archive.

Arrays of objects are pickles, and refused. What is big-endian or in Fortran order is converted when read; everything
else is a view of the mapped file, except in a compressed archive.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from trims.disk.importers import zipped
from trims.disk.importers.base import (
    LIBRARY_ERRORS,
    MAX_SIDE_FILE,
    MappedFile,
    Source,
    SourceTensor,
    bad,
    check_source,
    quoted,
)
from trims.disk.known import SourceFile
from trims.manifest import ITEM_SIZES

MAGIC = b"\x93NUMPY"
_NUMBER = re.compile(r"[<>=|]?[biufc][0-9]{1,2}")
_MAX_HEADER = 10_000  # NumPy's own limit: its headers are Python literals, which take long to parse when large


@dataclass(frozen=True, slots=True)
class _Header:
    """What an npy file says of its array. start: where the data begin."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    start: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    @property
    def converted(self) -> bool:
        """Whether its bytes are to be put into another order: C's, and little-endian."""
        little = self.dtype == self.dtype.newbyteorder("<")
        return not little or (self.fortran and len(self.shape) > 1)


def open_npy(path: str) -> Source:
    """One array; the tensor is named by the file. Raises BadInput."""
    file = MappedFile(path)
    try:
        header = _parse(path, path, bytes(file.data[: _MAX_HEADER + 12]))
        _check_size(path, path, header, file.nbytes)
        name = os.path.basename(path).removesuffix(".npy") or "array"
        tensor = _tensor(name, header, lambda: file.view(header.start, header.nbytes))
        origin: dict[str, Any] = {"path": os.path.abspath(path), "nbytes": file.nbytes}
        on_disk = [SourceFile(path, file.key, "npy", extra={"converted": [name] if header.converted else []})]
        return check_source(path, Source("npy", [tensor], origin=origin, closers=[file.close], on_disk=on_disk))
    except BaseException:
        file.close()
        raise


def open_npz(path: str) -> Source:
    """The arrays of an archive, by name; members that are no arrays become side files. Raises BadInput."""
    file = MappedFile(path)
    try:
        tensors, files = [], {}
        extra: dict[str, list[str]] = {"names": [], "converted": [], "others": []}
        for member in zipped.read_members(file):
            head = zipped.read_start(file, member, _MAX_HEADER + 12)
            if head.startswith(MAGIC):
                tensors.append(_member(file, member, head, extra))
            elif member.nbytes <= MAX_SIDE_FILE and not member.name.endswith(".npy"):
                files[member.name] = bytes(zipped.read_member(file, member))
                extra["others"].append(member.name)
            else:
                raise bad(path, f"its member {quoted(member.name)} is no array")
        tensors.sort(key=lambda tensor: tensor.name)
        origin: dict[str, Any] = {"path": os.path.abspath(path), "nbytes": file.nbytes}
        on_disk = [SourceFile(path, file.key, "npz", extra=extra)]
        source = Source("npz", tensors, files=files, origin=origin, closers=[file.close], on_disk=on_disk)
        return check_source(path, source)
    except BaseException:
        file.close()
        raise


def _member(file: MappedFile, member: zipped.Member, head: bytes, extra: dict[str, list[str]]) -> SourceTensor:
    """The array of a member. extra: told its name, and whether it is stored in another order of bytes or axes."""
    header = _parse(file.path, member.name, head)
    extra["names"].append(member.name.removesuffix(".npy"))
    if header.converted:
        extra["converted"].append(member.name.removesuffix(".npy"))
    _check_size(file.path, member.name, header, member.nbytes)
    checked = False

    def read() -> memoryview:
        nonlocal checked
        data = zipped.read_member(file, member, check=not checked)
        checked = True
        return data[header.start : header.start + header.nbytes]

    return _tensor(member.name.removesuffix(".npy"), header, read)


def _parse(path: str, name: str, head: bytes) -> _Header:
    """The header that an npy file begins with."""
    if not head.startswith(MAGIC) or len(head) < 12:
        raise bad(path, f"{quoted(name)} does not begin as an array does")
    version = head[6]
    width = 2 if version == 1 else 4
    length = int.from_bytes(head[8 : 8 + width], "little")
    start = 8 + width + length
    if version not in (1, 2, 3) or length > _MAX_HEADER or start > len(head):
        raise bad(path, f"the header of {quoted(name)} is cut, too long ({length} bytes) or of a later version")
    try:
        text = head[8 + width : start].decode("utf-8" if version == 3 else "latin1").strip()
        if "\\" in text:
            raise ValueError("it has a backslash")  # the parser would warn about some
        fields = ast.literal_eval(text)
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
        dtype = np.dtype(descr) if isinstance(descr, str) and _NUMBER.fullmatch(descr) else None
    except LIBRARY_ERRORS as error:
        raise bad(path, f"the header of {quoted(name)} cannot be parsed: {str(error)[:200]}") from None
    if not isinstance(shape, tuple) or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
        raise bad(path, f"the shape of {quoted(name)} is not of whole numbers")
    if dtype is None or dtype.name not in ITEM_SIZES or type(fortran) is not bool:
        # Also what NumPy writes for bfloat16 and float8: bytes without a type.
        raise bad(path, f"{quoted(name)} is an array of {descr!r}, which no tensor can be", "save it as safetensors")
    return _Header(dtype, fortran, shape, start)


def _check_size(path: str, name: str, header: _Header, nbytes: int) -> None:
    if header.start + header.nbytes != nbytes:
        raise bad(path, f"{quoted(name)} needs {header.nbytes} bytes, it has {nbytes - header.start}", "it may be cut")


def _tensor(name: str, header: _Header, data: Callable[[], memoryview]) -> SourceTensor:
    dtype, shape = header.dtype, header.shape
    little = dtype.newbyteorder("<")
    if not header.nbytes or not header.converted:
        return SourceTensor(name, dtype.name, shape, data)

    def convert() -> memoryview:
        array = np.frombuffer(data(), dtype).reshape(shape, order="F" if header.fortran else "C")
        return np.ascontiguousarray(array, little).reshape(-1).view(np.uint8).data

    return SourceTensor(name, dtype.name, shape, convert)
