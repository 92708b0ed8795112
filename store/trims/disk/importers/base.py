"""What an importer gives: named tensors whose bytes are views of the file wherever the format allows it.

A `Source` is open on the files it reads from. Its tensors are read one after the other, by `read()`, each possibly more
than once; the views stay valid until the source is closed. Nothing of the file is trusted: names, dtypes, shapes and
every offset have been checked before a source is handed out, so that reading stays in bounds whatever the file says.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

from trims.errors import BadInput

MAX_FILE_IN_MEMORY = 1 << 31
"""Bytes: the most of one file that is ever read whole (graphs, side files). Weights are mapped, not read."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """One tensor of a source. `read` gives its C-ordered little-endian bytes, as many as dtype and shape say."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], memoryview]


class Source:
    """An opened model file of any format. A context manager.

    tensors: in order of first use where the format tells one, by name otherwise.
    graph: given the region offset of every tensor by name, the graph's bytes; None when the format has no graph.
    files: side files by name. origin: plain JSON values about where it came from (`path`, `nbytes`, notes).
    """

    def __init__(self, format: str = "", origin: dict[str, Any] | None = None) -> None:
        self.format = format
        self.tensors: list[SourceTensor] = []
        self.graph: Callable[[Mapping[str, int]], bytes] | None = None
        self.files: dict[str, bytes] = {}
        self.origin: dict[str, Any] = origin or {}
        self._closers: list[Callable[[], None]] = []

    def on_close(self, closer: Callable[[], None]) -> None:
        """Call `closer` when the source is closed, last added first."""
        self._closers.append(closer)

    def close(self) -> None:
        """Let the files go. Views that are still held keep their own mapping alive."""
        while self._closers:
            self._closers.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bad(path: str, why: str, hint: str = "") -> BadInput:
    """The error for a file that cannot be imported."""
    return BadInput(f"cannot import {path!r}", why, hint)


class MappedFile:
    """A regular file, mapped read-only. `view` is its bytes; an empty file has an empty view."""

    def __init__(self, path: str) -> None:
        self.path = path
        fd = open_regular(path)
        try:
            self.nbytes = os.fstat(fd).st_size
            self._map = mmap.mmap(fd, self.nbytes, prot=mmap.PROT_READ) if self.nbytes else None
        finally:
            os.close(fd)
        self.view = memoryview(self._map) if self._map is not None else memoryview(b"")

    def span(self, offset: int, nbytes: int, what: str) -> memoryview:
        """Bytes of the file. Raises BadInput when they are not all there."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.nbytes:
            raise bad(self.path, f"{what} lies outside the file: bytes {offset} to {offset + nbytes} of {self.nbytes}")
        return self.view[offset : offset + nbytes]

    def close(self) -> None:
        """Drop our own view. The mapping itself goes with the last view that somebody holds."""
        self.view = memoryview(b"")
        self._map = None


def open_regular(path: str) -> int:
    """A read-only descriptor of a regular file. Never waits, as opening a FIFO would. Raises BadInput."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise bad(path, "there is no such file", "check the path") from None
    except OSError as error:
        raise bad(path, (os.strerror(error.errno or 0)).lower(), "check its owner and mode") from None
    except ValueError as error:
        raise bad(path, str(error), "check the path") from None
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        kind = "a directory" if stat.S_ISDIR(mode) else "no regular file"
        raise bad(path, f"it is {kind}", "name a model file")
    return fd
