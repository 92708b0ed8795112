"""One container, open for reading its span, from wherever its bytes are soonest to be had.

What is in the page cache is copied from there (`RWF_NOWAIT`), in steps that stay in the processor's cache. The rest is
read in one of two ways, and both leave the page cache to others: with O_DIRECT; or, where the kernel reads far ahead on
that disk and nothing of the file is cached, through the page cache and out of it again, piece by piece. With 8 MiB of
read-ahead on a virtual disk that took 132 ms for 168 MiB against 224 with O_DIRECT, for a fifth more processor time.

A failed RWF_NOWAIT starts the kernel reading what was asked for. Before O_DIRECT that would read everything's beginning
twice; so there one byte is asked for first, by a descriptor that reads nothing ahead.
"""

from __future__ import annotations

import errno
import os

from blake3 import blake3
from xxhash import xxh3_128, xxh3_128_hexdigest

from trims.disk import codec
from trims.disk.parts import CONTAINER, Part, parts_of_piece
from trims.disk.sidecar import Sidecar
from trims.errors import Damaged, NoSuchModel
from trims.linux import atomic, readahead

STEP = 512 << 10  # hashed while still in the second-level cache: 7 GB/s against 4 at 4 MiB (measured)
BLOCK = 4096  # what O_DIRECT needs of offsets, lengths and memory, at most
AHEAD = 1 << 20  # bytes of read-ahead from which on it is the faster way
LOOKS = 16  # bytes of the file that are looked for in the page cache


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

    direct: whether the page cache may be left as it was found; not when the file is to be mapped afterwards.
    """

    def __init__(self, path: str, sidecar: Sidecar, direct: bool = True) -> None:
        self.path, self.sidecar = path, sidecar
        self._direct: int | None = None
        self._look: int | None = None  # reads nothing ahead
        self._cached = True
        self._passing = False  # what is read goes through the page cache and out of it again
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoSuchModel(
                "the store does not hold this model", f"there is no {path}", "see `trims verify`"
            ) from None
        except OSError as error:
            raise atomic.translate(error, f"opening {path}") from None
        found = os.fstat(self.fd)
        if found.st_size != sidecar.container_nbytes:
            os.close(self.fd)
            raise damaged(path, [CONTAINER])
        if direct:
            self._leave_the_cache_alone(found.st_dev)

    def _leave_the_cache_alone(self, device: int) -> None:
        """Choose how what is not cached is read; where nothing is to be had, buffered reads do."""
        try:
            self._look = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            os.posix_fadvise(self._look, 0, 0, os.POSIX_FADV_RANDOM)
            self._passing = readahead.nbytes(device) >= AHEAD and not self._is_cached_anywhere()
            if not self._passing:
                self._direct = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
        except OSError:
            pass  # out of descriptors, or a file system without O_DIRECT

    def __enter__(self) -> SpanFile:
        return self

    def __exit__(self, *_: object) -> None:
        if self._passing:
            self._let_go(0, 0)
        for fd in (self.fd, self._look, self._direct):
            if fd is not None:
                os.close(fd)

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
        if self._passing:
            self._let_go(at, done)
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
        if not self._cached or (self._direct is not None and not self._is_cached(offset)):
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

    def _is_cached(self, offset: int) -> bool:
        """Whether the byte there can be had without the disk. A look that finds nothing brings in its page alone."""
        assert self._look is not None
        try:
            return os.preadv(self._look, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
        except BlockingIOError:
            return False
        except OSError:
            return True  # a file system that cannot tell: `_from_cache` finds out

    def _is_cached_anywhere(self) -> bool:
        start, nbytes = self.sidecar.data_range()
        return any(self._is_cached(start + n * nbytes // LOOKS) for n in range(LOOKS if nbytes else 0))

    def _let_go(self, offset: int, nbytes: int) -> None:
        """Ask that bytes of the file leave the page cache, where nobody had any of it when we began."""
        try:
            os.posix_fadvise(self.fd, offset, nbytes, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass

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
