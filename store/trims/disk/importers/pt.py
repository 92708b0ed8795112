"""PyTorch checkpoints: the tensors of what `torch.save` wrote, without PyTorch and without running what it pickled.

Two forms: a zip archive (`data.pkl` and one member a storage; TorchScript archives are the same with code beside), and
the older one, a row of pickles followed by the storages. A storage is raw numbers; a tensor is a dtype, an offset,
a shape and strides over it. Every offset is checked against the storage; what is not contiguous is copied when read.
Nested dictionaries become dotted names, the usual wrapper around a state dict goes, and so does optimiser state.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import Any

from trims.disk.importers import pickled, zipped
from trims.disk.importers.base import LIBRARY_ERRORS, MappedFile, Source, SourceTensor, bad, check_source
from trims.disk.importers.pt_flatten import flatten
from trims.disk.importers.pt_tensors import Rebuilder, Storage, Tensor
from trims.disk.known import SourceFile
from trims.errors import BadInput

_MAX_PICKLE = 64 << 20  # over a hundred bytes for each of half a million tensors
_MAX_TEXT = 64
_PROTOCOL = 1001
_HINT = "save `model.state_dict()`, or save it as safetensors"

Fetch = Callable[[str, int], Callable[[], memoryview]]


def open_torch(path: str) -> Source:
    """One checkpoint of either form. Raises BadInput."""
    file = MappedFile(path)
    try:
        zipped_form = bytes(file.data[:2]) == b"PK"
        try:
            value, notes, sizes = _load_zip(file) if zipped_form else _Legacy(file).load()
            tensors, skipped = flatten(value)
        except pickled.Refused as error:
            raise bad(path, error.why, error.hint or _HINT) from None
        except BadInput:
            raise
        except LIBRARY_ERRORS as error:
            raise bad(path, f"it is no PyTorch checkpoint, or a damaged one: {str(error)[:200]}") from None
        origin: dict[str, Any] = {"path": os.path.abspath(path), "nbytes": file.nbytes, **notes}
        if skipped:
            origin["skipped"] = skipped
        made = [_source_tensor(path, name, tensor) for name, tensor in sorted(tensors.items())]
        on_disk = [SourceFile(path, file.key, "torch", extra={"storages": _covered(tensors, sizes), **notes})]
        return check_source(path, Source("torch", made, origin=origin, closers=[file.close], on_disk=on_disk))
    except BaseException:
        file.close()
        raise


def _source_tensor(path: str, name: str, tensor: Tensor) -> SourceTensor:
    problem = tensor.problem()
    if problem:
        raise bad(path, f"tensor {name!r} {problem}", "it may be damaged")

    def read() -> memoryview:
        return tensor.read()

    return SourceTensor(name, tensor.dtype, tensor.shape, read)


def _covered(tensors: dict[str, Tensor], sizes: dict[str, int]) -> dict[str, str]:
    """Key of a storage to the name of a tensor that is all of it, byte for byte. sizes: of the storages, by key."""
    found: dict[str, str] = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.is_whole_storage() and tensor.storage.nbytes == sizes.get(tensor.storage.key):
            found.setdefault(tensor.storage.key, name)
    return found


def _load_zip(file: MappedFile) -> tuple[Any, dict[str, Any], dict[str, int]]:
    """The pickled value of an archive, with notes for the origin, and the bytes of every storage."""
    members = {member.name: member for member in zipped.read_members(file)}
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise bad(file.path, f"the archive has {len(pickles)} pickles called data.pkl instead of one")
    prefix = pickles[0].removesuffix("data.pkl")
    order = members.get(f"{prefix}byteorder")
    big = order is not None and zipped.read_start(file, order, _MAX_TEXT).strip() == b"big"
    script = any(name.startswith(f"{prefix}code/") for name in members)

    sizes: dict[str, int] = {}

    def fetch(key: str, nbytes: int) -> Callable[[], memoryview]:
        member = members.get(f"{prefix}data/{key}")
        if member is None or member.nbytes < nbytes:
            has = "no bytes" if member is None else f"{member.nbytes} bytes"
            raise bad(file.path, f"its storage {key[:100]!r} has {has}, {nbytes} are needed", "it may be cut")
        if member.method != zipped.STORED:
            raise bad(file.path, f"its storage {key[:100]!r} is compressed, which PyTorch never does")
        sizes[key] = member.nbytes
        # Not held to its checksum: PyTorch can be told to write none.
        return lambda: zipped.read_member(file, member, check=False)[:nbytes]

    rebuilder = Rebuilder(_storages(file.path, fetch), big_endian=big, script=script)
    member = members[pickles[0]]
    if member.nbytes > _MAX_PICKLE:
        raise bad(file.path, f"its pickle has {member.nbytes} bytes, over {_MAX_PICKLE}")
    value = _run(pickled.Window(zipped.read_member(file, member, check=False)), rebuilder)
    return value, {"torchscript": True} if script else {}, sizes


def _run(window: pickled.Window, rebuilder: Rebuilder) -> Any:
    return pickled.load(window, rebuilder.allowed, rebuilder.call)


def _storages(path: str, fetch: Fetch) -> Callable[[pickled.Persistent], Storage]:
    """From a persistent id of a pickle to its storage; the same one for the same key."""
    known: dict[str, Storage] = {}

    def storage(persistent: pickled.Persistent) -> Storage:
        found = Storage.from_pid(persistent.pid)
        if found.key not in known:
            found.read = fetch(found.key, found.nbytes)
            known[found.key] = found
        elif found.nbytes > known[found.key].nbytes:
            raise bad(path, f"its storage {found.key[:100]!r} is of two sizes")
        return found.like(known[found.key])

    return storage


class _Legacy:
    """The form before the zip archive: magic, version, system, value, keys; then each storage with its length."""

    def __init__(self, file: MappedFile) -> None:
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._needs: dict[str, int] = {}

    def load(self) -> tuple[Any, dict[str, Any], dict[str, int]]:
        window = pickled.Window(self._file.data[:_MAX_PICKLE])
        plain = Rebuilder(_storages(self._file.path, self._fetch))
        _run(window, plain)
        version = _run(window, plain)
        system = _run(window, plain)
        if version != _PROTOCOL or not isinstance(system, dict):
            raise bad(self._file.path, "it is a PyTorch checkpoint of an unknown version")
        big = system.get("little_endian") is False
        rebuilder = Rebuilder(_storages(self._file.path, self._fetch), big_endian=big)
        value, keys = _run(window, rebuilder), _run(window, rebuilder)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise bad(self._file.path, "its list of storages is malformed")
        self._locate(rebuilder, keys, window.tell(), "big" if big else "little")
        return value, {"legacy": True}, {}

    def _fetch(self, key: str, nbytes: int) -> Callable[[], memoryview]:
        """Where a storage lies is known only after the pickles; until then it is only promised."""
        self._needs[key] = nbytes
        return lambda: self._file.view(*self._places[key])

    def _locate(self, rebuilder: Rebuilder, keys: list[str], at: int, order: str) -> None:
        for key in keys:
            (items,) = struct.unpack(">q" if order == "big" else "<q", self._file.view(at, 8))
            width = rebuilder.widths.get(key, 0)
            nbytes = items * width
            if items < 0 or self._needs.get(key, 0) > nbytes:
                raise bad(self._file.path, f"its storage {key[:100]!r} has {nbytes} bytes, more are needed")
            self._file.view(at + 8, nbytes)
            self._places[key] = (at + 8, self._needs.get(key, 0))
            at += 8 + nbytes
        missing = set(self._needs) - set(self._places)
        if missing:
            raise bad(self._file.path, f"its storage {min(missing)[:100]!r} is missing", "it may be cut")
