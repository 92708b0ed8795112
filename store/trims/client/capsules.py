"""DLPack capsules: made by NumPy, and told what NumPy does not know: opaque types, and memory of a GPU.

NumPy's own deleter takes the GIL in whatever thread a consumer calls it, keeps the array and so all that it holds until
then, and does nothing once the interpreter has ended; a deleter written in Python would crash there. So an array is
made over the address alone, which NumPy never looks at, and where the memory is gets written into the capsule.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from trims.manifest import STORAGE

CPU = (1, 0)
"""kDLCPU, and the number of the device."""
CUDA = 2
"""kDLCUDA: memory of a GPU, whose number is that in this process."""

# DLDataTypeCode of what is opaque to NumPy; the codes of float8 are those of DLPack 1.1.
_CODES = {
    "bfloat16": 4, "float8_e4m3fn": 10, "float8_e4m3fnuz": 11, "float8_e5m2": 12, "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14,
}  # fmt: skip
# Where DLTensor begins: at once in DLManagedTensor; in DLManagedTensorVersioned after the version (two uint32), two
# pointers and the flags (uint64).
_NAMES = {b"dltensor": 0, b"dltensor_versioned": 32}
# In DLTensor: data (a pointer), device (two int32), ndim (int32), dtype (code uint8, bits uint8, lanes uint16).
_DEVICE_AT, _CODE_AT = 8, 20

_is_named = ctypes.pythonapi.PyCapsule_IsValid
_is_named.restype, _is_named.argtypes = ctypes.c_int, (ctypes.py_object, ctypes.c_char_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class _Memory:
    """Some memory by its address, as NumPy takes it; `owner` lives as long as arrays over it."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], writable: bool, owner: object
    ) -> None:
        data = (address, not writable)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}
        self.owner = owner


def of_array(array: np.ndarray[Any, Any]) -> object:
    """A capsule of a writable array in host memory, without a copy. Raises BufferError for a type DLPack lacks."""
    name = array.dtype.name
    if name not in STORAGE:
        return array.__dlpack__()
    code = _code(name)
    return _mark(array.view(STORAGE[name]).__dlpack__(), code=code)


def of_memory(
    address: int, shape: tuple[int, ...], dtype: np.dtype[Any], device: tuple[int, int], owner: object, versioned: bool
) -> object:
    """A capsule of the memory of a device at an address, which is there as long as `owner` is.

    device: (type, number). versioned: of version 1, which says that the memory is read-only; the first version has no
    words for that. Of the first version too where this NumPy knows no other: consumers look at its name.
    Raises BufferError for a type DLPack lacks.
    """
    code = _code(dtype.name) if dtype.name in STORAGE else None
    stored = np.dtype(STORAGE.get(dtype.name, dtype))
    if versioned:
        array = np.asarray(_Memory(address, shape, stored, False, owner))
        try:
            return _mark(array.__dlpack__(max_version=(1, 0)), device, code)  # type: ignore[call-arg,unused-ignore]
        except (TypeError, BufferError):  # NumPy before 2.1
            pass
    array = np.asarray(_Memory(address, shape, stored, True, owner))
    return _mark(array.__dlpack__(), device, code)


def _code(dtype: str) -> int:
    if dtype not in _CODES:
        raise BufferError(f"DLPack has no {dtype}")
    return _CODES[dtype]


def _mark(capsule: object, device: tuple[int, int] | None = None, code: int | None = None) -> object:
    """Put right what NumPy wrote into a capsule."""
    name = next(name for name in _NAMES if _is_named(capsule, name))
    tensor = _pointer(capsule, name) + _NAMES[name]
    if device is not None:
        (ctypes.c_int32 * 2).from_address(tensor + _DEVICE_AT)[:] = list(device)
    if code is not None:
        ctypes.c_uint8.from_address(tensor + _CODE_AT).value = code
    return capsule
