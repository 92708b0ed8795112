"""From a container into memory, every byte checked on its way: how a model becomes resident.

A few threads take pieces in order. Each tries the page cache first (`RWF_NOWAIT`): what is there is copied and hashed
in steps that stay in the processor's cache, several times faster than hashing afterwards. What is not there is read
with O_DIRECT, at a tenth of the CPU time of a buffered read and without pushing anybody's pages out; where file or
memory cannot do that, buffered. Frames are decoded straight into the destination. A piece that does not match its hash
is never handed out: `Damaged` names the tensor that the bad bytes belong to.
"""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable

from blake3 import blake3
from xxhash import xxh3_128, xxh3_128_hexdigest

from trims.disk import codec
from trims.disk.parts import CONTAINER, Part, parts, parts_of_piece
from trims.disk.sidecar import Sidecar
from trims.errors import Damaged, NoSuchModel, TrimsError
from trims.linux import atomic

STEP = 512 << 10  # hashed while still in the second-level cache: 7 GB/s against 4 at 4 MiB (measured)
BLOCK = 4096  # what O_DIRECT needs of offsets, lengths and memory, at most


class Cancelled(TrimsError):
    """The reader was told to stop: nobody waits for this load any more."""

    code = "cancelled"
    exit_code = 1


def fill(
    path: str,
    sidecar: Sidecar,
    buffer: memoryview,
    *,
    threads: int = 2,
    prepare: Callable[[int, int], None] | None = None,
    progress: Callable[[int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> None:
    """Fill the first `span_nbytes` of the writable `buffer` with the model's region, verified.

    prepare: called with (offset, nbytes) before those bytes of the buffer are written, from any thread.
    progress: called with the bytes done so far, from any thread, one at a time. cancelled: asked before each piece.
    Raises Damaged, Cancelled, NoSuchModel, and what `prepare` raises.
    """
    out = memoryview(buffer).cast("B")
    if len(out) < sidecar.span_nbytes:
        raise ValueError(f"the buffer has {len(out)} bytes, the span {sidecar.span_nbytes}")
    with SpanFile(path, sidecar) as file:
        _Fill(file, out[: sidecar.span_nbytes], prepare, progress, cancelled).run(min(threads, len(sidecar.pieces)))


def read_blob(path: str, sidecar: Sidecar, name: str) -> bytes:
    """The graph (`graph`) or a side file (`file NAME`), verified. Raises NoSuchModel when the model has none such."""
    for part in parts(sidecar.manifest):
        if part.name == name and not part.dtype:
            with SpanFile(path, sidecar) as file:
                data = file.read(part.offset, part.nbytes)
            if blake3(data).hexdigest() != part.digest:
                raise damaged(path, [name])
            return data
    raise NoSuchModel(f"the model has no {name}", "", "see `trims show`")


def damaged(path: str, names: list[str]) -> Damaged:
    """The error for damage in these parts of a container."""
    first = names[0] if names[0] in (CONTAINER, "graph") or names[0].startswith("file ") else f"tensor {names[0]}"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return Damaged(
        f"{first}{more} is damaged",
        f"{path} is not as it was written",
        "import the model again",
        parts=names,
        path=path,
    )


class SpanFile:
    """A container, opened for reading its span. A context manager.

    direct: whether what is not cached may be read past the page cache; not when it is to be mapped afterwards.
    """

    def __init__(self, path: str, sidecar: Sidecar, direct: bool = True) -> None:
        self.path, self.sidecar = path, sidecar
        self._direct: int | None = None
        self._cached = True
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchModel(
                "the store does not hold this model", f"there is no {path}", "see `trims verify`"
            ) from None
        except OSError as error:
            raise atomic.translate(error, f"opening {path}") from None
        if os.fstat(self.fd).st_size != sidecar.container_nbytes:
            os.close(self.fd)
            raise damaged(path, [CONTAINER])
        try:
            if direct:
                self._direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            pass  # a file system without O_DIRECT: buffered reads do

    def __enter__(self) -> SpanFile:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        if self._direct is not None:
            os.close(self._direct)

    def read_piece(self, index: int, out: memoryview) -> str:
        """Read one piece of the span into `out`; returns the xxh3_128 of what was read."""
        frames = self.sidecar.frames
        if frames is not None:
            frame = frames[index]
            codec.decompress(frame.kind, self.read_at(frame.offset, frame.nbytes), out)
            return xxh3_128_hexdigest(out)
        hasher = xxh3_128()
        at, done = self.sidecar.span_offset + self.sidecar.piece(index)[0], 0
        while done < len(out):
            step = out[done : done + STEP]
            got = self._from_cache(step, at + done)
            if not got:
                step = out[done:]
                got = self._from_disk(step, at + done)
            hasher.update(step[:got])
            done += got
        return hasher.hexdigest()

    def read(self, start: int, nbytes: int) -> bytes:
        """Bytes of the span, not verified."""
        if self.sidecar.frames is None:
            return self.read_at(self.sidecar.span_offset + start, nbytes)
        out = bytearray()
        size = self.sidecar.piece_nbytes
        for index in range(start // size, -(-(start + nbytes) // size) if nbytes else 0):
            first, length = self.sidecar.piece(index)
            piece = memoryview(bytearray(length))
            self.read_piece(index, piece)
            out += piece[max(0, start - first) : start + nbytes - first]
        return bytes(out)

    def read_at(self, offset: int, nbytes: int) -> bytes:
        """Bytes of the file."""
        data = bytearray(nbytes)
        view, done = memoryview(data), 0
        while done < nbytes:
            done += self._buffered(view[done:], offset + done)
        return bytes(data)

    def _from_cache(self, view: memoryview, offset: int) -> int:
        """Bytes read without waiting for the disk; 0 when it would have to."""
        if not self._cached:
            return 0
        try:
            return os.preadv(self.fd, [view], offset, os.RWF_NOWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise atomic.translate(error, f"reading {self.path}") from None
            self._cached = False  # a file system that cannot tell: then it waits
            return 0

    def _from_disk(self, view: memoryview, offset: int) -> int:
        whole = len(view) // BLOCK * BLOCK
        if self._direct is not None and whole and offset % BLOCK == 0:
            try:
                got = os.preadv(self._direct, [view[:whole]], offset)
                if got:
                    return got
            except OSError as error:
                if error.errno != errno.EINVAL:  # EINVAL: the memory is not aligned as O_DIRECT needs it
                    raise atomic.translate(error, f"reading {self.path}") from None
        return self._buffered(view, offset)

    def _buffered(self, view: memoryview, offset: int) -> int:
        try:
            got = os.preadv(self.fd, [view], offset)
        except OSError as error:
            raise atomic.translate(error, f"reading {self.path}") from None
        if not got:
            raise damaged(self.path, [CONTAINER])  # shortened while we read it
        return got

    def blame(self, index: int) -> list[str]:
        """The names of the parts that a bad piece damages: those whose own digest is wrong, `container` if none is."""
        suspects = parts_of_piece(self.sidecar, index)
        return [part.name for part in suspects if not self.is_whole(part)] or [CONTAINER]

    def is_whole(self, part: Part) -> bool:
        """Whether a part's bytes have the digest that the manifest names."""
        hasher, at, end = blake3(), part.offset, part.offset + part.nbytes
        try:
            while at < end:
                hasher.update(self.read(at, min(self.sidecar.piece_nbytes, end - at)))
                at += self.sidecar.piece_nbytes
        except Damaged:
            return False
        return bool(hasher.hexdigest() == part.digest)


class _Fill:
    """One filling: pieces handed out to threads, the first failure kept."""

    def __init__(
        self,
        file: SpanFile,
        out: memoryview,
        prepare: Callable[[int, int], None] | None,
        progress: Callable[[int], None] | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        self._file, self._out = file, out
        self._prepare, self._progress, self._cancelled = prepare, progress, cancelled
        self._next = itertools.count()
        self._lock = threading.Lock()
        self._done = 0
        self._failure: BaseException | None = None

    def run(self, threads: int) -> None:
        """Do it all, in this thread and `threads` - 1 others."""
        helpers = [threading.Thread(target=self._work, name="trims-read") for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        self._work()
        for helper in helpers:
            helper.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            pieces = self._file.sidecar.pieces
            while self._failure is None and (index := next(self._next)) < len(pieces):
                if self._cancelled and self._cancelled():
                    raise Cancelled("the load was cancelled")
                self._piece(index, pieces[index])
        except BaseException as error:
            with self._lock:
                self._failure = self._failure or error

    def _piece(self, index: int, digest: str) -> None:
        start, nbytes = self._file.sidecar.piece(index)
        if self._prepare:
            self._prepare(start, nbytes)
        try:
            whole = self._file.read_piece(index, self._out[start : start + nbytes]) == digest
        except Damaged:
            whole = False
        if not whole:
            raise damaged(self._file.path, self._file.blame(index))
        with self._lock:
            self._done += nbytes
            if self._progress:
                self._progress(self._done)
