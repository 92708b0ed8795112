"""What every importer gives: a `Source`, and how it gets at bytes of files that somebody else made.

Files are hostile until read. They are opened only when regular (a FIFO would block, a device may act), mapped and never
read whole, and every offset is checked against the mapping before it is used. Nothing here runs code from a file,
follows a reference out of the model's directory, or allocates what a header merely claims.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from trims.disk import fingerprint
from trims.disk.fingerprint import FileKey
from trims.disk.known import SourceFile
from trims.errors import BadInput
from trims.manifest import ITEM_SIZES, check_tensor

MAX_TENSORS = 1_000_000
MAX_SIDE_FILE = 64 << 20
MAX_HEADER = 100_000_000  # what the safetensors library allows

# A model whose bytes are 1000 times those of its file is no model: honest archives of weights shrink to a half at best.
BOMB_BYTES, BOMB_RATIO = 1 << 30, 1000

LIBRARY_ERRORS = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, RuntimeError, MemoryError,
    SyntaxError, struct.error, zlib.error,
)  # fmt: skip
"""What parsers of other libraries raise when they meet bytes that they did not expect."""

_noting: list[dict[str, str]] = []
"""Where `noting_files` notes what is opened; the innermost is last."""

Buffer = memoryview
Graph = Callable[[Mapping[str, int]], bytes]


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor: `read` gives its C-ordered little-endian bytes, each time anew, and may raise BadInput."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Buffer]


class Source:
    """An open model to import. A context manager; views that `read` gave live on after closing.

    tensors: in the order that the region is to have. graph: from the region offsets of all tensors, by name, the bytes
    of the computation; None when there is none. files: side files. origin: plain JSON values about where this is from.
    on_disk: the files whose content all this is, each after those that it needs.
    """

    def __init__(
        self,
        format: str = "",
        tensors: Iterable[SourceTensor] = (),
        graph: Graph | None = None,
        files: Mapping[str, bytes] | None = None,
        origin: Mapping[str, Any] | None = None,
        closers: Iterable[Callable[[], None]] = (),
        on_disk: Iterable[SourceFile] = (),
    ) -> None:
        self.format = format
        self.tensors: list[SourceTensor] = list(tensors)
        self.graph = graph
        self.files: dict[str, bytes] = dict(files or {})
        self.origin: dict[str, Any] = dict(origin or {})
        self.on_disk: list[SourceFile] = list(on_disk)
        self._closers = list(closers)

    def close(self) -> None:
        while self._closers:
            self._closers.pop()()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bad(path: str, why: str, hint: str = "") -> BadInput:
    """The error for a file that cannot be imported."""
    return BadInput(f"cannot import {path}", why, hint)


def check_source(path: str, source: Source) -> Source:
    """`source` when its tensors have good, different names and storable types. Raises BadInput."""
    if len(source.tensors) > MAX_TENSORS:
        raise bad(path, f"it has over {MAX_TENSORS} tensors")
    if not source.tensors and source.graph is None:
        raise bad(path, "it holds no tensors")
    seen: set[str] = set()
    total = 0
    for tensor in source.tensors:
        if not is_unicode(tensor.name) or len(tensor.name) > 1024:
            raise bad(path, f"the tensor name {quoted(tensor.name)} is too long, or no valid Unicode")
        check_tensor(tensor.name, tensor.dtype, tensor.shape)
        if tensor.name in seen:
            raise bad(path, f"it has two tensors named {tensor.name!r}")
        seen.add(tensor.name)
        total += prod(tensor.shape) * ITEM_SIZES[tensor.dtype]
    check_ratio(path, "the model", total, source.origin["nbytes"])
    return source


def quoted(name: str) -> str:
    """`name` for a message: its beginning, when it is absurdly long."""
    return repr(name if len(name) <= 100 else name[:100] + "...")


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class MappedFile:
    """A regular file, mapped read-only. `nbytes` is its size when opened; views keep the mapping alive.

    key: which file and which state of it this is; None while it was written to a moment ago.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        fd = open_regular(path)
        try:
            st = os.fstat(fd)
            self.nbytes = st.st_size
            self.identity = (st.st_dev, st.st_ino)
            key = FileKey.of(st)
            self.key = key if fingerprint.settled(key) else None
            self.mapping = mmap.mmap(fd, self.nbytes, prot=mmap.PROT_READ) if self.nbytes else None
        except (OSError, ValueError) as error:
            raise bad(path, f"it cannot be mapped: {error}") from None
        finally:
            os.close(fd)
        self.data = memoryview(self.mapping) if self.mapping is not None else memoryview(b"")

    def view(self, offset: int, nbytes: int) -> memoryview:
        """Bytes of the file, without copying. Raises BadInput when it has no such bytes."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise bad(
                self.path, f"bytes {offset} to {offset + nbytes} are wanted, it has {self.nbytes}", "it may be cut"
            )
        return self.data[offset : offset + nbytes]

    def reader(self, offset: int, nbytes: int) -> Callable[[], memoryview]:
        """A `SourceTensor.read` of these bytes; the range is checked now."""
        self.view(offset, nbytes)
        return lambda: self.view(offset, nbytes)

    def close(self) -> None:
        """Unmap, unless views are still out: then with the last of them."""
        self.data = memoryview(b"")
        mapping, self.mapping, self.nbytes = self.mapping, None, 0
        if mapping is not None:
            try:
                mapping.close()
            except BufferError:
                pass


@contextmanager
def noting_files() -> Iterator[dict[str, str]]:
    """Every file that importers open meanwhile: by the name it was called, the path where it is. Not for threads."""
    noted: dict[str, str] = {}
    _noting.append(noted)
    try:
        yield noted
    finally:
        _noting.remove(noted)


def open_regular(path: str) -> int:
    """A descriptor of the regular file at `path`, never blocking. Raises BadInput."""
    if _noting and path not in _noting[-1].values():
        _noting[-1][path] = path
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # before opening: that alone can act on a device
            raise bad(path, f"it is {_kind(os.stat(path).st_mode)}, not a file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise bad(path, *_reason(error)) from None
    except ValueError:
        raise bad(path, "its name has a NUL character") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise bad(path, "it is not a file")
    return fd


def read_small(path: str, limit: int = MAX_SIDE_FILE) -> bytes:
    """All of a small regular file. Raises BadInput, also when it is larger than `limit`."""
    fd = open_regular(path)
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_size > limit:
            raise bad(path, f"it is larger than {limit} bytes")
        return file.read(limit)


def _reason(error: OSError) -> tuple[str, str]:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "there is no such file", "check the path"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "it may not be read", "check its owner and mode"
    return os.strerror(error.errno or 0), ""


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a directory"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def inside(base: str, name: str, referrer: str) -> str:
    """The real path of the file that the model file `referrer` calls `name`. Raises BadInput when it leaves the model.

    base: the path by which `referrer` was opened. A name is relative, without `..`, and what it leads to lies below
    the directory of `base` or the one where the model file really is: hubs link both into one directory of blobs.
    """
    if not name or name.startswith("/") or "\0" in name or ".." in name.split("/"):
        raise bad(referrer, f"it refers to {quoted(name)}, which is no file of its own directory")
    real = os.path.realpath(base)
    roots = {os.path.realpath(os.path.dirname(base) or "."), os.path.dirname(real)}
    candidates = [os.path.join(os.path.dirname(base), name), os.path.join(os.path.dirname(real), name)]
    found = next((path for path in candidates if os.path.exists(path)), candidates[0])
    target = os.path.realpath(found)
    if not any(target.startswith(root.rstrip("/") + "/") for root in roots):
        raise bad(
            referrer, f"it refers to {quoted(name)}, which leads out of its directory", "put the file itself there"
        )
    if _noting:
        _noting[-1][candidates[0]] = target
    return target


def check_ratio(path: str, name: str, nbytes: int, stored: int) -> None:
    """Raise BadInput when `stored` bytes of a file claim to be absurdly many."""
    if nbytes > BOMB_BYTES and nbytes > BOMB_RATIO * max(stored, 1):
        raise bad(path, f"{quoted(name)} claims {nbytes} bytes of {stored} stored ones", "no honest model does")
