"""safetensors.safe_open, and so load_file and transformers' from_pretrained: tensors come out of the shared model.

The library's own object is opened in any case: names, order, metadata, closing and errors are its own, and so is all
that is not done here: other frameworks than torch and NumPy, other devices than the CPU, and slices for NumPy. It is a
type made in Rust, which nothing can be derived from, so another type takes its name.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from trims.disk.fingerprint import FileKey
from trims.redirect import deciding
from trims.redirect.environment import wishes

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from trims.disk.known import Known
    from trims.redirect.deciding import Decision


def patch(safetensors: Any) -> None:
    """Put our `safe_open` over the library's."""
    safetensors.safe_open = _substitute(safetensors.safe_open)


def _substitute(real: Any) -> Any:
    """A type that makes the library's objects, or ours for a file that is known."""

    class Type(type):
        def __call__(cls, *args: Any, **options: Any) -> Any:
            return _called(cls, lambda: real(*args, **options), args, options)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real) or type.__instancecheck__(cls, instance)

    class safe_open(_File, metaclass=Type):  # noqa: N801  the library's name
        __slots__ = ()
        __doc__ = real.__doc__

        def __init_subclass__(cls) -> None:
            raise TypeError("type 'builtins.safe_open' is not an acceptable base type")

    if hasattr(real, "get_tensors"):  # since 0.8
        safe_open.get_tensors = _get_tensors  # type: ignore[attr-defined]
    safe_open.__module__, safe_open.__qualname__ = real.__module__, real.__qualname__
    return safe_open


def _called(cls: Any, native: Callable[[], Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What `safe_open(*args, **options)` gives; native: what the library's own gives."""
    asked = None if deciding.is_ours() else deciding.guard(lambda: _asked(*args, **options))
    if asked is None:
        return native()
    path, framework, why = asked
    key = _key(path)  # before it is recognised: what is opened afterwards must be this

    def ours(decision: Decision) -> Any:
        if why:
            raise deciding.Unsuited(why)
        file = _open(decision, native, framework, cls)
        if key is None or _key(path) != key:
            raise deciding.Unsuited("it was replaced while it was opened")
        return file

    def measured(known: Known) -> Any:
        if not wishes().measures:  # it fell back: what is lazy is no measure
            return native()
        begun = time.perf_counter()
        made = native()
        return _made(cls, made, _Clock(made, path, known, time.perf_counter() - begun))

    return deciding.load(path, "safetensors", ours, native, measured)


def _key(path: Any) -> FileKey | None:
    return deciding.guard(lambda: FileKey.of(os.stat(path)))


def _asked(
    filename: Any = None, framework: Any = None, device: Any = "cpu", *args: Any, **options: Any
) -> tuple[Any, str, str] | None:
    """(path, framework, why it is left to the library) of the opening of a file; None for what is an error there."""
    suits = isinstance(filename, (str, os.PathLike)) and isinstance(framework, str) and not args
    if not suits or not options.keys() <= {"backend"} or not os.path.isfile(filename):
        return None
    if framework not in _FRAMEWORKS:
        return filename, framework, f"it is opened for {framework}"
    return filename, framework, "" if device == "cpu" else f"its tensors go to {device}"


_TORCH = frozenset(("pt", "torch", "pytorch"))
_FRAMEWORKS = _TORCH | {"np", "numpy"}


def _open(decision: Decision, native: Callable[[], Any], framework: str, cls: Any) -> Any:
    """The file, opened by the library, with the tensors of the model."""
    if decision.known.kind != "safetensors":
        raise deciding.Unsuited(f"it was imported as {decision.known.kind}")
    from trims.integrations.safetensors import giver

    model = decision.model()
    tensors = _Tensors(giver(model, framework, keep=True), model, decision.known.tensors, framework not in _TORCH)
    return _made(cls, native(), tensors)


def _made(cls: Any, opened: Any, tensors: _Tensors | _Clock) -> Any:
    file = object.__new__(cls)
    file._file, file._tensors = opened, tensors
    return file


class _Tensors:
    """The tensors of one open file. Each is given as the library gives it: torch shares one memory, NumPy copies."""

    def __init__(self, give: Callable[[str], Any], model: Any, names: dict[str, str] | None, copies: bool) -> None:
        self._give, self._names, self._copies = give, names, copies
        self._views, self._model = model.region().contents.views, model
        self._given: set[str] = set()
        self._lock = threading.Lock()

    def get(self, name: Any) -> Any:
        """The tensor; None for what is the library's: no such name, NumPy without values or with a dtype of others."""
        if not isinstance(name, str):
            return None
        inner = name if self._names is None else self._names.get(name)
        if inner is None or inner not in self._views:
            return None
        if not self._copies:
            return None if _is_fake() else self._give(inner)
        shape, dtype, _ = self._views[inner]
        if 0 in shape or dtype.isbuiltin != 1:
            return None
        with self._lock:
            is_fresh = inner not in self._given
            self._given.add(inner)
        return self._give(inner) if is_fresh else self._model[inner].copy()

    @property
    def are_views(self) -> bool:
        """Whether a slice of a tensor is a view of it."""
        return not self._copies

    def end(self) -> None:
        """The file is closed."""


class _Clock:
    """The library's own tensors of one open file, measured until it is closed. seconds: what it took to open."""

    def __init__(self, file: Any, path: Any, known: Known, seconds: float) -> None:
        self._file, self._path, self._known, self._seconds = file, path, known, seconds

    def get(self, name: Any) -> Any:
        begun = time.perf_counter()
        tensor = self._file.get_tensor(name)
        self._seconds += time.perf_counter() - begun
        return tensor

    def end(self) -> None:
        deciding.native(self._path, "safetensors", self._seconds, self._known)


class _File:
    """An open file: the library's, but for the tensors."""

    __slots__ = ("_file", "_tensors")
    _file: Any
    _tensors: _Tensors | _Clock | None

    def get_tensor(self, name: Any) -> Any:
        tensor = self._tensor(name)
        return self._file.get_tensor(name) if tensor is None else tensor

    def get_slice(self, name: Any) -> Any:
        piece, tensors = self._file.get_slice(name), self._tensors
        if not isinstance(tensors, _Tensors) or not tensors.are_views:
            return piece
        return PySafeSlice(piece, tensors, name)

    def keys(self) -> Any:
        return self._file.keys()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        self._file.__enter__()
        return self

    def __exit__(self, *args: Any) -> Any:
        tensors, self._tensors = self._tensors, None
        if tensors is not None:
            tensors.end()
        return self._file.__exit__(*args)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._file.__reduce_ex__(protocol)

    def _tensor(self, name: Any) -> Any:
        tensors = self._tensors
        return None if tensors is None else deciding.guard(lambda: tensors.get(name))


def _get_tensors(file: Any) -> dict[str, Any]:
    return {name: file.get_tensor(name) for name in file.offset_keys()}


class PySafeSlice:
    """A tensor to be, for torch: a view of the shared one is taken by indexing."""

    __slots__ = ("_name", "_piece", "_tensors")

    def __init__(self, piece: Any, tensors: _Tensors, name: str) -> None:
        self._piece, self._tensors, self._name = piece, tensors, name

    def get_shape(self) -> Any:
        return self._piece.get_shape()

    def get_dtype(self) -> Any:
        return self._piece.get_dtype()

    def __getitem__(self, index: Any) -> Any:
        tensor = None if _is_elsewhere() else deciding.guard(lambda: self._tensors.get(self._name))
        return self._piece[index] if tensor is None else tensor[index]


def _is_fake() -> bool:
    """Whether torch only pretends, and its tensors have no values."""
    core = sys.modules["torch"]._C
    return getattr(core, "_len_torch_dispatch_stack", int)() > 0


def _is_elsewhere() -> bool:
    """Whether torch makes tensors on another device than the CPU now: slices the library makes there, too."""
    torch = sys.modules["torch"]
    if hasattr(torch, "get_default_device"):  # since 2.3
        return bool(torch.get_default_device().type != "cpu")
    return bool(torch._C._len_torch_function_stack() > 0)
