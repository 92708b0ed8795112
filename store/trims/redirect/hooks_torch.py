"""torch.load of a zip archive: its storages come out of the shared model.

torch's own code does the load, from the pickle to map_location; only the reader that it opens the archive with is
ours, and gives the bytes of a storage from a copy-on-write map of this load's own, where the store has these bytes as
a tensor. So storages are private, as those of torch are, with and without mmap=True. Left to torch alone: what is
neither a path nor a file that was opened by one, TorchScript, the format before the archive, and maps that are to write
to the file.
"""

from __future__ import annotations

import functools
import io
import mmap as memory
import os
import sys
import threading

from trims.disk.fingerprint import FileKey
from trims.redirect import deciding

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from trims.redirect.deciding import Decision

_UNSUITED = {
    "legacy": "it is of the format that PyTorch wrote before 1.6",
    "torchscript": "it is a TorchScript archive",
}
_given = threading.local()
"""`_given.storages`: for the archive that this thread's `ours` is about to open."""


def patch(serialization: Any) -> None:
    """Put our `load` and our reader over those of `torch.serialization`."""
    serialization._open_zipfile_reader = _reader(serialization._open_zipfile_reader)
    serialization.load = _load(serialization, serialization.load)


def _load(serialization: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(f: Any, map_location: Any = None, pickle_module: Any = None, **options: Any) -> Any:
        def native() -> Any:
            if path is not f:
                f.seek(0)  # where it stood, whatever was read of it in vain
            return original(f, map_location, pickle_module, **options)

        def ours(decision: Decision) -> Any:
            mapped = _is_mapped(options.get("mmap"))
            if mapped and getattr(serialization, "get_default_mmap_options", int)() == memory.MAP_SHARED:
                raise deciding.Unsuited("it is mapped so that writes go to the file")
            storages = _Storages(decision, key, mapped)
            _given.storages = storages
            try:
                result = original(f, map_location, pickle_module, **{**options, "mmap": False})
            finally:
                _given.storages = None
            decision.nbytes = storages.nbytes
            return result

        path = f if deciding.is_ours() or _is_mapped(options.get("mmap")) else _path(f)
        if deciding.is_ours() or not _suits(path, map_location):
            return original(f, map_location, pickle_module, **options)
        key = _key(os.stat, path)  # before it is recognised: what is opened afterwards must be this
        return deciding.load(path, "torch", ours, native)

    return load


def _path(f: Any) -> Any:
    """The path by which a program has opened the file `f`, if it still leads there and nothing was read; else `f`."""
    if type(f) is not io.BufferedReader:
        return f
    try:
        opened = f.tell() == 0 and os.path.samestat(os.fstat(f.fileno()), os.stat(f.name))
    except (OSError, ValueError, TypeError):
        return f
    return f.name if opened and isinstance(f.name, str) else f


def _suits(f: Any, map_location: Any) -> bool:
    """Whether a load reads storages from a path: the others are not worth a word."""
    if not isinstance(f, (str, os.PathLike)) or os.fspath(f).endswith(".safetensors"):  # those go on to safetensors
        return False
    return str(map_location) != "meta" and os.path.isfile(f)  # to meta, nothing is read


def _is_mapped(mapped: Any) -> bool:
    """Whether torch would map the file; asked for, or by its configuration, which came with 2.7."""
    if mapped is None:
        config = getattr(sys.modules.get("torch.utils.serialization"), "config", None)
        mapped = config is not None and config.load.mmap
    return bool(mapped)


def _key(stat: Callable[[Any], os.stat_result], file: Any) -> FileKey | None:
    return deciding.guard(lambda: FileKey.of(stat(file)))


class _Storages:
    """The storages of one archive that the model has. nbytes: those that were taken.

    key: of the file that was recognised. mapped: whether torch would have mapped the others.
    """

    def __init__(self, decision: Decision, key: FileKey | None, mapped: bool) -> None:
        known = decision.known
        why = next((why for name, why in _UNSUITED.items() if known.extra.get(name)), "")
        if known.kind != "torch" or why:
            raise deciding.Unsuited(why or f"it was imported as {known.kind}")
        if not known.extra.get("storages"):
            raise deciding.Unsuited("none of its storages is one tensor of the model")
        from trims.integrations.torch import Storages

        self._names: dict[str, str] = known.extra["storages"]
        self._storages = Storages(decision.model(), keep=True)
        self.key, self.mapped = key, mapped
        self.nbytes = 0

    def get(self, record: str, nbytes: int) -> Any:
        """The bytes of the archive's record, as torch's reader gives them; None when that is to read them."""
        name = self._names.get(record.removeprefix("data/"))
        if name is None:
            return None
        tensor = self._storages.storage(name)
        if tensor.numel() != nbytes:
            return None
        self.nbytes += nbytes
        return tensor


def _reader(original: Any) -> Any:
    """torch's opener of archives; for the one that is waited for, it gives a reader of ours."""

    class _open_zipfile_reader(original):  # type: ignore[misc]  # noqa: N801  torch's name
        def __init__(self, file: Any) -> None:
            super().__init__(file)
            self.file_like: Any
            storages, _given.storages = getattr(_given, "storages", None), None
            if storages is not None:
                if storages.key is None or _key(os.fstat, file.fileno()) != storages.key:
                    raise deciding.Unsuited("it was replaced while it was opened")
                others = _others(file.fileno()) if storages.mapped else None
                self.file_like = _Reader(self.file_like, storages, others)

    return _open_zipfile_reader


def _others(fd: int) -> Callable[[int, int], Any]:
    """What gives bytes of a file (offset, nbytes) as torch's reader does, but from a private map."""
    torch = sys.modules["torch"]
    whole = torch.UntypedStorage.from_file(f"/proc/self/fd/{fd}", False, os.fstat(fd).st_size)
    return lambda offset, nbytes: torch.empty(0, dtype=torch.uint8, device="cpu").set_(whole[offset : offset + nbytes])


class _Reader:
    """torch's reader of an archive, but for the storages that the model has. others: what gives the bytes of the rest,
    if not torch's reader."""

    def __init__(self, reader: Any, storages: _Storages, others: Callable[[int, int], Any] | None) -> None:
        self._reader, self._storages, self._others = reader, storages, others

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)

    def get_storage_from_record(self, record: str, nbytes: int, kind: Any) -> Any:
        found = self._storages.get(record, nbytes)
        if found is None and self._others is not None:
            found = self._others(self._reader.get_record_offset(record), nbytes)
        return self._reader.get_storage_from_record(record, nbytes, kind) if found is None else found
