"""Storages and tensors of a PyTorch checkpoint, and the few names a pickle of them may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from trims.disk.importers.base import BOMB_BYTES, BOMB_RATIO, MAX_TENSORS
from trims.disk.importers.pickled import Global, Instance, Persistent, Refused
from trims.manifest import ITEM_SIZES, STORAGE

STORAGE_TYPES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "BFloat16Storage": "bfloat16",
    "LongStorage": "int64", "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8",
    "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64", "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}  # fmt: skip
DTYPES = {
    "float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32", "short": "int16",
    "cfloat": "complex64", "cdouble": "complex128",
    **{name: name for name in ITEM_SIZES},
}  # fmt: skip

_REBUILD = {
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3",
    "_rebuild_parameter", "_rebuild_parameter_with_state",
}  # fmt: skip
_PLAIN = {
    "collections": {"OrderedDict", "defaultdict", "Counter"},
    "torch": {"Size", "device", *DTYPES, *STORAGE_TYPES, "strided", "contiguous_format", "preserve_format"},
    "torch.cuda": {*STORAGE_TYPES},
    "torch.storage": {"UntypedStorage"},
    "torch.serialization": {"_get_layout"},
    "torch._utils": _REBUILD,
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch.nn.parameter": {"Parameter"},
    "_codecs": {"encode"},
}
_BUILTINS = {
    "set",
    "frozenset",
    "list",
    "dict",
    "tuple",
    "int",
    "float",
    "bool",
    "str",
    "complex",
    "bytearray",
    "slice",
}
_SCRIPT = {"torch.jit._pickle", "torch.jit"}


@dataclass(slots=True)
class Storage:
    """Raw numbers: `items` of `dtype`. read: gives their bytes, as they are in the file."""

    key: str
    dtype: str
    items: int
    read: Callable[[], memoryview] | None = None

    @property
    def nbytes(self) -> int:
        return self.items * ITEM_SIZES[self.dtype]

    @classmethod
    def from_pid(cls, pid: Any) -> Storage:
        """('storage', type, key, device, items, ...), as PyTorch names them. Raises Refused."""
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] not in ("storage", b"storage"):
            raise Refused("", "its pickle refers to what is no storage", "save `model.state_dict()` instead")
        kind, key, items = pid[1], pid[2], pid[4]
        dtype = STORAGE_TYPES.get(kind.name) if isinstance(kind, Global) else None
        if dtype is None:
            raise Refused("", f"its storage has the type {str(kind)[:100] if isinstance(kind, Global) else '?'}")
        if type(items) is not int or not 0 <= items < 1 << 60 or not isinstance(key, str):
            raise Refused("", "its storage has no key or no size")
        if len(pid) > 5 and pid[5] is not None:
            raise Refused("", "its storages are views of each other, as PyTorch 0.1 wrote them", "save it again")
        return cls(key, dtype, items)

    def like(self, other: Storage) -> Storage:
        """This storage over the bytes of `other`, which has its key."""
        self.read = other.read
        return self


@dataclass(slots=True)
class Tensor:
    """A strided view of a storage. offset and strides count numbers of `dtype`."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    big_endian: bool = False

    def problem(self) -> str:
        """Why this tensor does not lie in its storage; "" when it does."""
        width = ITEM_SIZES[self.dtype]
        if len(self.shape) != len(self.strides) or min((self.offset, *self.shape, *self.strides)) < 0:
            return "has a negative or missing size, offset or stride"
        if len(self.shape) > 32:
            return "has over 32 dimensions"
        if 0 in self.shape:
            return ""
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if (last + 1) * width > self.storage.nbytes:
            return f"ends at byte {(last + 1) * width} of a storage of {self.storage.nbytes}"
        nbytes = prod(self.shape) * width
        if nbytes > BOMB_BYTES and nbytes > BOMB_RATIO * self.storage.nbytes:
            return f"claims {nbytes} bytes of a storage of {self.storage.nbytes}"
        return ""

    def read(self) -> memoryview:
        """Its bytes, C-ordered and little-endian: a view where that is what the storage has."""
        if 0 in self.shape or self.storage.read is None:
            return memoryview(b"")
        width = ITEM_SIZES[self.dtype]
        data = self.storage.read()
        if self._contiguous() and not (self.big_endian and width > 1):
            return data[self.offset * width : (self.offset + prod(self.shape)) * width]
        storage = np.dtype(STORAGE.get(self.dtype, self.dtype)).newbyteorder(">" if self.big_endian else "<")
        numbers = np.frombuffer(data[: len(data) // width * width], storage)[self.offset :]
        steps = tuple(step * width for step in self.strides)
        array = np.lib.stride_tricks.as_strided(numbers, self.shape, steps, writeable=False)
        whole = np.ascontiguousarray(array, storage.newbyteorder("<"))
        return whole.reshape(-1).view(np.uint8).data

    def is_whole_storage(self) -> bool:
        """Whether its bytes are those of the storage, all of them as they lie."""
        width = ITEM_SIZES[self.dtype]
        nbytes = prod(self.shape) * width
        plain = self._contiguous() and not (self.big_endian and width > 1)
        return plain and self.offset == 0 and 0 < nbytes == self.storage.nbytes

    def _contiguous(self) -> bool:
        expected = 1
        for n, step in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and step != expected:
                return False
            expected *= n
        return True


@dataclass
class Rebuilder:
    """What a checkpoint's pickle may name, and what calling it gives.

    script: whether classes of TorchScript, which live in the archive's own code, may be named: as inert objects.
    widths: bytes a number of every storage that a tensor was made of, by key.
    """

    storage: Callable[[Persistent], Storage]
    big_endian: bool = False
    script: bool = False
    widths: dict[str, int] = field(default_factory=dict)
    _copied: int = 0

    def allowed(self, found: Global) -> bool:
        if found.module in ("builtins", "__builtin__"):
            return found.name in _BUILTINS
        if found.name in _PLAIN.get(found.module, ()):
            return True
        return self.script and (found.module.partition(".")[0] == "__torch__" or found.module in _SCRIPT)

    def call(self, function: Global, arguments: tuple[Any, ...]) -> Any:
        """The value that calling `function` stands for. Raises Refused, or an error of malformed arguments."""
        if function.name in _REBUILD or function.name == "_rebuild_from_type_v2":
            return self._rebuild(function.name, arguments)
        if function.module == "collections":
            return self._mapping(function, arguments)
        if function.module in _SCRIPT:
            return arguments[0] if arguments else None
        if function.module.partition(".")[0] == "__torch__":
            return Instance(function, arguments)
        if arguments and function.name in ("set", "frozenset", "list", "tuple", "dict", "Size"):
            return arguments[0]  # not copied: a pickle can ask for that again and again
        return Instance(function, arguments)  # a device, a layout, a number: never a tensor, so never looked at

    def _mapping(self, function: Global, arguments: tuple[Any, ...]) -> dict[Any, Any]:
        if function.name == "defaultdict" or not arguments:
            return {}
        pairs = arguments[0].items() if isinstance(arguments[0], dict) else arguments[0]
        made = {}
        self._copied += len(pairs)
        if self._copied > MAX_TENSORS:
            raise Refused("", f"its pickle copies over {MAX_TENSORS} values")
        for key, value in pairs:
            if not isinstance(key, (str, int)):
                raise Refused("", f"its pickle has a {type(key).__name__} as a key")
            made[key] = value
        return made

    def _rebuild(self, name: str, arguments: tuple[Any, ...]) -> Tensor:
        if name == "_rebuild_from_type_v2":
            function, _, inner, _ = arguments
            if not isinstance(function, Global) or not isinstance(inner, tuple) or function.name not in _REBUILD:
                raise Refused("", "its pickle rebuilds a tensor in an unknown way")
            return self._rebuild(function.name, inner)
        if name.startswith("_rebuild_parameter"):
            if not isinstance(arguments[0], Tensor):
                raise TypeError("a parameter without a tensor")
            return arguments[0]
        return self._tensor(name, arguments)

    def _tensor(self, name: str, arguments: tuple[Any, ...]) -> Tensor:
        persistent, offset, shape, strides = arguments[:4]
        if not isinstance(persistent, Persistent):
            raise TypeError("a tensor without a storage")
        storage = self.storage(persistent)
        self.widths[storage.key] = ITEM_SIZES[storage.dtype]
        dtype, extra = storage.dtype, arguments[6:7]
        if name == "_rebuild_tensor_v3":
            kind, extra = arguments[6], arguments[7:8]
            if not isinstance(kind, Global) or kind.name not in DTYPES:
                raise Refused("", f"it has a tensor of {str(kind)[:100] if isinstance(kind, Global) else 'no dtype'}")
            dtype = DTYPES[kind.name]
        if extra and extra[0]:
            hint = "save it after `.resolve_conj()` and `.resolve_neg()`"
            raise Refused("", "it has a tensor that is yet to be conjugated or negated", hint)
        if not isinstance(shape, (tuple, list)) or not isinstance(strides, (tuple, list)) or len(shape) > 64:
            raise TypeError("a tensor whose shape is none")
        for number in (offset, *shape, *strides):
            if type(number) is not int or abs(number) >= 1 << 60:
                raise TypeError("a tensor whose sizes are no whole numbers")
        return Tensor(storage, dtype, offset, tuple(shape), tuple(strides), self.big_endian)
