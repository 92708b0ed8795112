"""numpy.load of an .npz file: its arrays come out of the shared model, one private copy-on-write map for them all.

The archive itself is opened by NumPy, as ever: names, order, members that are no arrays, closing and errors are its
own. Only the bytes of an array are not read from it when it is looked up. An array is as NumPy's own: fresh for each
look-up, writable, and nobody else's.
"""

from __future__ import annotations

import functools
import os
import stat
import threading
import time

from trims.linux import descriptors
from trims.redirect import deciding

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from typing import Any

    import numpy as np

    from trims.client import Model
    from trims.disk.known import Known
    from trims.redirect.deciding import Decision

_SMALL = 64 << 10  # bytes up to which a copy costs less than the faults of a map's pages
_ZIP = b"PK\3\4"
_LIMIT = "max_header_size"
"""An option that NumPy follows when an array is looked up."""


def patch(numpy: Any) -> None:
    """Put our `load` over NumPy's, wherever it goes by that name."""
    original = numpy.load
    if hasattr(original, "_trims"):  # it was reloaded, and has found our function where it found its own before
        return
    load = _load(original)
    modules: list[Any] = [numpy, getattr(numpy.lib, "npyio", None), getattr(numpy.lib, "_npyio_impl", None)]
    for module in modules:
        if getattr(module, "load", None) is original:
            module.load = load


def _load(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(file: Any, mmap_mode: Any = None, allow_pickle: Any = False, *args: Any, **options: Any) -> Any:
        if deciding.is_ours() or mmap_mode is not None or _LIMIT in options or not _is_archive(file):
            return original(file, mmap_mode, allow_pickle, *args, **options)
        begun = time.perf_counter()
        archive = original(file, mmap_mode, allow_pickle, *args, **options)
        seconds = time.perf_counter() - begun
        # Before the path is looked at once more: what is recognised must be what is open.
        key = deciding.guard(lambda: _key(os.fstat(archive.zip.fp.fileno())))
        return deciding.load(
            file,
            "numpy",
            lambda decision: _shared(decision, archive, key),
            lambda: archive,
            lambda known: _measured(known, file, archive, seconds),
        )

    load._trims = True  # type: ignore[attr-defined]
    return load


def _is_archive(file: Any) -> bool:
    """Whether `file` is the path of a zip archive: the others are not worth a word."""
    if not isinstance(file, (str, os.PathLike)):
        return False
    try:
        if not stat.S_ISREG(os.stat(file).st_mode):  # whoever writes into a pipe would hear of its opening
            return False
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError, TypeError):
        return False
    try:
        return os.pread(fd, len(_ZIP), 0) == _ZIP
    except OSError:
        return False
    finally:
        os.close(fd)


def _key(status: os.stat_result) -> tuple[int, ...]:
    from trims.disk.fingerprint import FileKey

    return FileKey.of(status)


def _shared(decision: Decision, archive: Any, key: tuple[int, ...] | None) -> Any:
    """NumPy's own object for the open archive, made to take its arrays from the model."""
    if decision.known.kind != "npz":
        raise deciding.Unsuited(f"it was imported as {decision.known.kind}")
    if key is None or _key(os.stat(decision.source)) != key:
        raise deciding.Unsuited("it was replaced while it was opened")
    archive.__dict__["_trims"] = _Arrays(decision.model(), decision.known.tensors)
    archive.__class__ = _class_of(type(archive))  # type: ignore[arg-type]
    return archive


@functools.cache
def _class_of(npz_file: Hashable) -> Any:
    """NpzFile, with a look-up of ours before its own."""

    base: Any = npz_file

    class NpzFile(base):  # type: ignore[misc]
        def __getitem__(self, key: Any) -> Any:
            array = deciding.guard(lambda: self._trims.get(self, key))
            return base.__getitem__(self, key) if array is None else array

    NpzFile.__module__, NpzFile.__qualname__, NpzFile.__doc__ = base.__module__, "NpzFile", base.__doc__
    return NpzFile


def _measured(known: Known, path: Any, archive: Any, seconds: float) -> Any:
    """NumPy's own object, whose load is done when the last array was read: they are read when they are looked up.

    seconds: what it took to open.
    """

    def note() -> None:
        archive.__dict__["_trims"] = [path, known, seconds, set(archive.files)]
        archive.__class__ = _measuring(type(archive))  # type: ignore[arg-type]

    deciding.guard(note)
    return archive


@functools.cache
def _measuring(npz_file: Hashable) -> Any:
    """NpzFile, with the time measured that each array's first look-up takes."""
    base: Any = npz_file

    class NpzFile(base):  # type: ignore[misc]
        def __getitem__(self, key: Any) -> Any:
            begun = time.perf_counter()
            array = base.__getitem__(self, key)
            path, known, seconds, left = self._trims
            name = key.removesuffix(".npy") if key not in left else key
            if name in left:
                left.discard(name)
                self._trims[2] = seconds = seconds + time.perf_counter() - begun
                if not left:
                    deciding.native(path, "numpy", seconds, known)
            return array

    NpzFile.__module__, NpzFile.__qualname__, NpzFile.__doc__ = base.__module__, "NpzFile", base.__doc__
    return NpzFile


class _Arrays:
    """The arrays of one open archive."""

    def __init__(self, model: Model, tensors: dict[str, str] | None) -> None:
        from trims.client.attachment import in_host_memory

        self._model, self._tensors = model, tensors
        self._region = in_host_memory(model.region())
        self._base: np.ndarray[Any, Any] | None = None
        self._given: set[int] = set()  # offsets in `_base`: each is given to one array only
        self._lock = threading.Lock()

    def get(self, archive: Any, key: Any) -> np.ndarray[Any, Any] | None:
        """A fresh, writable array; None for what is NumPy's to answer: no array, an empty one, another order."""
        member = archive._files[key] if isinstance(archive._files, dict) else key
        if not isinstance(member, str) or archive.zip is None:
            return None
        member = member if member in archive.zip.NameToInfo else f"{member}.npy"
        name = member.removesuffix(".npy")
        name = name if self._tensors is None else self._tensors.get(name, "")
        view = self._region.contents.views.get(name)
        if view is None or 0 in view[0] or not _is_plain(archive, member, view):
            return None
        shape, dtype, offset = view
        import numpy as np

        array: np.ndarray[Any, Any] = np.ndarray(shape, dtype, self._region.base, offset)
        if array.nbytes <= _SMALL or descriptors.are_scarce():  # every map keeps one
            return array.copy()
        return np.ndarray(shape, dtype, self._private(offset), offset)

    def _private(self, offset: int) -> np.ndarray[Any, Any]:
        """A private map in which nobody was given the array at `offset` yet."""
        with self._lock:
            if self._base is None:
                self._base = self._region.private_base()
            if offset not in self._given:
                self._given.add(offset)
                return self._base
        return self._region.private_base()


def _is_plain(archive: Any, member: str, view: tuple[Any, ...]) -> bool:
    """Whether the archive says of the array what the model does, and in the order and byte order of memory."""
    from numpy.lib import format

    with archive.zip.open(member) as file:
        version = format.read_magic(file)
        read = {(1, 0): format.read_array_header_1_0, (2, 0): format.read_array_header_2_0}.get(version)
        if read is None:
            return False
        shape, fortran, dtype = read(file)
    is_flat = not fortran or len(shape) <= 1
    return bool(is_flat and shape == view[0] and dtype == view[1] and dtype.isnative)
