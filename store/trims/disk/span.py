"""Writing a span: the bytes of a region, gathered from their sources and cut into pieces, hashed on their way to disk.

A piece is a list of views, never a copy: `pwritev` gathers them. Two threads hash and write, in bounded order, so that
no more than a few pieces are held whatever a source makes of its tensors. Bytes between tensors are zero, and hashed.
The disk begins on each piece at once: it works while the next are hashed, and the fsync at the end finds little to do.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from xxhash import xxh3_128, xxh3_128_hexdigest

from trims.disk import codec
from trims.disk.sidecar import PIECE, Frame
from trims.errors import BadInput
from trims.linux import atomic, step, writeback

THREADS = 2
_IOV_MAX = 1024  # <limits.h>
_ZEROS = memoryview(bytes(4096))
_T = TypeVar("_T")
_R = TypeVar("_R")

Views = list[memoryview]
Progress = Callable[[int], None]


class Segment(NamedTuple):
    """A tensor, graph or file and where it lies in the span. width: that of its numbers, for the codec."""

    name: str
    offset: int
    nbytes: int
    width: int
    read: Callable[[], memoryview]


class Piece(NamedTuple):
    """One piece of the span. width: of the numbers that most of it holds."""

    offset: int
    nbytes: int
    width: int
    views: Views


def as_bytes(buffer: object, nbytes: int, name: str) -> memoryview:
    """`buffer` as a flat view of bytes. Raises BadInput when its length is not what its shape says."""
    view = memoryview(buffer)  # type: ignore[arg-type]
    if view.nbytes != nbytes:
        raise BadInput(f"tensor {name!r} cannot be read", f"it has {view.nbytes} bytes instead of {nbytes}")
    return view.cast("B") if nbytes else memoryview(b"")


def pieces(segments: Iterable[Segment], nbytes: int) -> Iterator[Piece]:
    """The span of `nbytes`, cut into pieces. Each segment is read once, when its turn comes."""
    views: Views = []
    widths: dict[int, int] = {}
    at = 0

    def flush() -> Piece:
        start = (at - 1) // PIECE * PIECE
        width = max(widths, key=lambda w: widths[w]) if widths else 1
        piece = Piece(start, at - start, width, views.copy())
        views.clear()
        widths.clear()
        return piece

    for view, width in _run(segments, nbytes):
        while view:
            part = view[: PIECE - at % PIECE]
            views.append(part)
            widths[width] = widths.get(width, 0) + len(part)
            at += len(part)
            view = view[len(part) :]
            if at % PIECE == 0:
                yield flush()
    if views:
        yield flush()


def _run(segments: Iterable[Segment], nbytes: int) -> Iterator[tuple[memoryview, int]]:
    """All bytes of the span in order: (view, width of its numbers)."""
    at = 0
    for segment in segments:
        yield from _padding(segment.offset - at)
        if segment.nbytes:
            yield as_bytes(segment.read(), segment.nbytes, segment.name), segment.width
        at = segment.offset + segment.nbytes
    yield from _padding(nbytes - at)


def _padding(nbytes: int) -> Iterator[tuple[memoryview, int]]:
    while nbytes > 0:
        yield _ZEROS[:nbytes], 1
        nbytes -= len(_ZEROS)


def write_raw(fd: int, at: int, segments: Iterable[Segment], nbytes: int, progress: Progress | None) -> list[str]:
    """Write the span at `at` of the file; returns the xxh3_128 of each piece."""

    def work(piece: Piece) -> tuple[str, int]:
        hasher = xxh3_128()
        for view in piece.views:
            hasher.update(view)
        _write_views(fd, piece.views, at + piece.offset)
        writeback.begin(fd, at + piece.offset, piece.nbytes)
        return hasher.hexdigest(), piece.nbytes

    digests = []
    for digest, done in in_order(work, pieces(segments, nbytes)):
        digests.append(digest)
        if progress:
            progress(done)
    return digests


def write_frames(
    fd: int, at: int, segments: Iterable[Segment], nbytes: int, progress: Progress | None
) -> tuple[list[str], list[Frame]]:
    """Write the span as compressed frames, back to back from `at`; returns the raw pieces' digests and the frames."""

    def work(piece: Piece) -> tuple[str, str, bytes, int]:
        raw = b"".join(piece.views)
        return xxh3_128_hexdigest(raw), *codec.compress(raw, piece.width), len(raw)

    digests, frames = [], []
    for digest, kind, data, done in in_order(work, pieces(segments, nbytes)):
        atomic.write_all(fd, data, at)
        writeback.begin(fd, at, len(data))
        digests.append(digest)
        frames.append(Frame(at, len(data), kind, xxh3_128_hexdigest(data)))
        at += len(data)
        if progress:
            progress(done)
    return digests, frames


def in_order(work: Callable[[_T], _R], items: Iterable[_T], threads: int = THREADS) -> Iterator[_R]:
    """`work` of every item, in threads; results in order. Items are taken in the caller's thread, never many ahead."""
    with ThreadPoolExecutor(threads, "trims-disk") as pool:
        pending: deque[Future[_R]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= 2 * threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _write_views(fd: int, views: Views, offset: int) -> None:
    """Gather `views` into the file at `offset`; a short write goes on."""
    for start in range(0, len(views), _IOV_MAX):
        group = views[start : start + _IOV_MAX]
        total = sum(map(len, group))
        step("write")
        done = os.pwritev(fd, group, offset)
        if done < total:
            atomic.write_all(fd, memoryview(b"".join(group))[done:], offset + done)
        offset += total
