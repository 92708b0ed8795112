"""DLPack capsules of GPU memory, parsed as a consumer in C does: what they say, and that each is given up once."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from helpers.gpu_regions import Made

from trims.client import mapping
from trims.client.device_mapping import DeviceRegion, attached
from trims.devices import drivers, simulated
from trims.manifest import ITEM_SIZES, STORAGE

# DLDataTypeCode: kDLInt 0, kDLUInt 1, kDLFloat 2, kDLBfloat 4, kDLComplex 5, kDLBool 6; float8 from DLPack 1.1 on.
CODES = {
    **{f"int{bits}": 0 for bits in (8, 16, 32, 64)}, **{f"uint{bits}": 1 for bits in (8, 16, 32, 64)},
    **{f"float{bits}": 2 for bits in (16, 32, 64)}, "bfloat16": 4, "complex64": 5, "complex128": 5, "bool": 6,
    "float8_e4m3fn": 10, "float8_e4m3fnuz": 11, "float8_e5m2": 12, "float8_e5m2fnuz": 13,
    "float8_e8m0fnu": 14,
}  # fmt: skip
READ_ONLY = 1


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Legacy(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", DELETER)]


class Versioned(ctypes.Structure):
    _fields_ = [
        ("major", ctypes.c_uint32), ("minor", ctypes.c_uint32), ("context", ctypes.c_void_p), ("deleter", DELETER),
        ("flags", ctypes.c_uint64), ("tensor", DLTensor),
    ]  # fmt: skip


_set_name = ctypes.pythonapi.PyCapsule_SetName
_set_name.argtypes = (ctypes.py_object, ctypes.c_char_p)
_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class Consumed:
    """A capsule taken over as the protocol wants it: renamed, so that it does not call the deleter itself."""

    def __init__(self, capsule: Any, versioned: bool) -> None:
        name = b"dltensor_versioned" if versioned else b"dltensor"
        self._used = b"used_" + name
        self.managed = (Versioned if versioned else Legacy).from_address(_pointer(capsule, name))
        _set_name(capsule, self._used)
        self.address = ctypes.addressof(self.managed)

    @property
    def tensor(self) -> DLTensor:
        tensor: DLTensor = self.managed.tensor
        return tensor

    def delete(self) -> None:
        self.managed.deleter(self.address)


@pytest.fixture
def directory(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    made = simulated.make(str(home / "gpus"))
    monkeypatch.setenv(drivers.SIMULATED, made)
    yield made
    mapping._contents.clear()


def opened(directory: str, released: list[int], arrays: dict[str, Any] | None = None) -> DeviceRegion:
    """A region on the second GPU, of a tensor of every type or of `arrays`; `released` gets an item at its end."""
    if arrays is None:
        arrays = {name: np.ones((2, 3), getattr(ml_dtypes, name, None) or name) for name in ITEM_SIZES}
        arrays |= {"scalar": np.array(1, np.int32), "empty": np.zeros((0, 5), np.float16)}
    made = Made(directory, arrays, ordinal=1)
    try:
        return attached(made.answer(), made.descriptors(), lambda: released.append(1), made.place)
    finally:
        made.close()


@pytest.mark.parametrize("versioned", [False, True])
def test_a_capsule_says_what_the_tensor_is(directory: str, versioned: bool) -> None:
    for name, view in opened(directory, []).views().items():
        taken = Consumed(view.__dlpack__(stream=1, max_version=(1, 1) if versioned else None), versioned)
        tensor, dtype = taken.tensor, view.dtype
        assert (tensor.device_type, tensor.device_id) == view.__dlpack_device__() == (2, 1)
        assert (tensor.code, tensor.bits, tensor.lanes) == (CODES[dtype.name], dtype.itemsize * 8, 1), name
        assert tensor.shape[: tensor.ndim] == list(view.shape)
        assert (tensor.data or 0) + tensor.byte_offset == view.address
        if tensor.strides and view.size:
            strides = [tensor.strides[n] * dtype.itemsize for n in range(tensor.ndim)]
            assert strides == list(np.empty(view.shape, dtype).strides)
        if versioned:
            assert taken.managed.major == 1 and taken.managed.flags & READ_ONLY
        taken.delete()


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_consumer_keeps_the_memory_until_it_calls_the_deleter(
    directory: str, versioned: bool, in_thread: bool
) -> None:
    released: list[int] = []
    view = opened(directory, released, {"w": np.arange(6, dtype=np.float32)}).view("w")
    address = view.address
    taken = Consumed(view.__dlpack__(max_version=(1, 0) if versioned else None), versioned)
    del view
    gc.collect()
    assert released == []
    assert ctypes.string_at(address, 24) == np.arange(6, dtype=np.float32).tobytes()  # simulated memory is the host's
    if in_thread:
        thread = threading.Thread(target=taken.delete)
        thread.start()
        thread.join()
    else:
        taken.delete()
    assert released == [1]


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_that_nobody_takes_gives_the_memory_up(directory: str, version: tuple[int, int] | None) -> None:
    released: list[int] = []
    view = opened(directory, released, {"w": np.arange(6, dtype=np.float32)}).view("w")
    capsule = view.__dlpack__(max_version=version)
    del view
    assert released == []
    del capsule
    assert released == [1]


def test_host_memory_can_be_asked_for_and_nothing_else(directory: str) -> None:
    view = opened(directory, []).view("float32")
    assert (np.from_dlpack(view, device="cpu") == view.get()).all()
    for refused in ({"copy": True}, {"dl_device": (2, 0)}, {"dl_device": (1, 0), "copy": False}):
        with pytest.raises(BufferError):
            view.__dlpack__(**refused)


def test_the_array_interface_is_read_only_and_names_standard_types_alone(directory: str) -> None:
    region = opened(directory, [])
    assert region.view("float32").__cuda_array_interface__ == {
        "version": 3, "shape": (2, 3), "typestr": "<f4", "data": (region.view("float32").address, True),
        "strides": None, "stream": None,
    }  # fmt: skip
    assert region.view("empty").__cuda_array_interface__["data"] == (0, True)
    for name in STORAGE:
        assert not hasattr(region.view(name), "__cuda_array_interface__")
