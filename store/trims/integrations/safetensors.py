"""Shared weights by the interface of the safetensors library: `safe_open` and `load_file`, given a model for a file.

Tensors are writable, as the library's are, on a copy-on-write map of each `safe_open`'s own: pages that are only read
are shared, a write is seen through this `safe_open` alone. The library itself need not be installed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from trims.client.attachment import in_host_memory
from trims.client.handle import Model, open
from trims.client.private import Private
from trims.disk.catalog import Catalog
from trims.disk.importers.safetensors import DTYPES, METADATA_FILE
from trims.disk.sidecar import read_sidecar
from trims.errors import TrimsError

if TYPE_CHECKING:
    from torch import Tensor

try:
    from safetensors import SafetensorError
except ImportError:

    class SafetensorError(Exception):  # type: ignore[no-redef]
        """What the library raises, where there is no library."""


__all__ = ["SafetensorError", "TORCH", "NUMPY", "Slice", "giver", "load_file", "safe_open"]

TORCH = frozenset(("pt", "torch", "pytorch"))
NUMPY = frozenset(("np", "numpy"))
"""Names of the frameworks, as the library takes them."""

_CODES = {dtype: code for code, dtype in DTYPES.items()}


def giver(model: Model, framework: str, keep: bool = False) -> Callable[[str], Any]:
    """What gives a tensor of `model` by name, on a copy-on-write map of its own. Raises SafetensorError.

    keep: the tensors hold the model itself, too, not only its memory.
    """
    if framework in TORCH:
        from trims.integrations.torch import Storages

        return Storages(model, keep).tensor
    if framework not in NUMPY:
        raise SafetensorError(f"framework {framework} is invalid")
    return Private(in_host_memory(model.region()), model if keep else None).array


class Slice:
    """A tensor to be: its shape and dtype at once, its values, or some of them, by indexing."""

    __slots__ = ("_dtype", "_give", "_shape")

    def __init__(self, give: Callable[[], Any], shape: tuple[int, ...], dtype: str) -> None:
        self._give, self._shape, self._dtype = give, shape, dtype

    def get_shape(self) -> list[int]:
        return list(self._shape)

    def get_dtype(self) -> str:
        """As the format calls it: "F32"."""
        return _CODES.get(self._dtype, self._dtype)

    def __getitem__(self, index: Any) -> Any:
        return self._give()[index]


class safe_open:  # noqa: N801  the library's name
    """A model as an open safetensors file: a context manager.

    model: an open Model, or its ref. framework: pt or np. device: where torch puts the tensors; elsewhere than where
    the model was opened, the CPU or a GPU, they are copies. Raises SafetensorError as the library does, and what
    `trims.open` raises.
    """

    def __init__(self, model: Model | str, framework: str, device: Any = "cpu") -> None:
        if framework not in TORCH | NUMPY:
            raise SafetensorError(f"framework {framework} is invalid")
        self._device = None if str(device) == "cpu" else device
        if self._device is not None and framework in NUMPY:
            raise SafetensorError(f"Device {device} is not supported for framework numpy")
        self._model: Model | None = open(model) if isinstance(model, str) else model
        self._is_own = isinstance(model, str)
        self._give = giver(self._model, framework)
        if self._device is None and framework in TORCH and self._model.region().on_gpu:
            self._device = device

    def keys(self) -> list[str]:
        return sorted(self._open())

    def offset_keys(self) -> list[str]:
        """The names in the order in which they lie in the region, which need not be that of any file."""
        return list(self._open())

    def metadata(self) -> dict[str, str] | None:
        """What the imported file said beside its tensors; None when it said nothing, or the store is out of sight."""
        model = self._open()
        if METADATA_FILE in model.files:
            known: dict[str, str] = json.loads(model.files[METADATA_FILE])
            return known
        return _noted(model)

    def get_tensor(self, name: str) -> Tensor | np.ndarray[Any, Any]:
        """The tensor `name`. Called twice, it gives the same memory twice."""
        self._check(name)
        given: Tensor | np.ndarray[Any, Any] = self._tensor(name)
        return given

    def get_tensors(self) -> dict[str, Tensor | np.ndarray[Any, Any]]:
        return {name: self._tensor(name) for name in self._open()}

    def get_slice(self, name: str) -> Slice:
        model = self._check(name)
        shape, dtype, _ = model.region().contents.views[name]
        return Slice(lambda: self._tensor(name), shape, dtype.name)

    def __enter__(self) -> safe_open:
        self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        model, self._model = self._model, None
        if model is not None and self._is_own:
            model.close()

    def _tensor(self, name: str) -> Any:
        tensor = self._give(name)
        return tensor if self._device is None else tensor.to(self._device)

    def _check(self, name: str) -> Model:
        model = self._open()
        if name not in model:
            raise SafetensorError(f"File does not contain tensor {name}")
        return model

    def _open(self) -> Model:
        if self._model is None:
            raise SafetensorError("File is closed")
        return self._model


def load_file(model: Model | str, device: Any = "cpu", framework: str = "pt") -> Mapping[str, Any]:
    """All tensors of a model by name: for torch, or for NumPy with framework="np"."""
    with safe_open(model, framework, device) as file:
        return file.get_tensors()


def _noted(model: Model) -> dict[str, str] | None:
    """The metadata that the store has noted of a model's origin."""
    store = model.backend.store
    if store is None:
        return None
    origin: Mapping[str, Any] = {}
    with suppress(TrimsError):
        entry = None if model.ref.startswith("id:") else Catalog(store.paths).find(model.ref)
        if entry is not None and entry.digest == model.digest:
            origin = entry.origin
        else:
            origin = read_sidecar(store.paths.sidecar(model.digest)).origin
    found: dict[str, str] | None = origin.get("metadata")
    return found
