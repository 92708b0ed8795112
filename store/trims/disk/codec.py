"""Pieces to frames and back: bytes to bytes, each frame by itself, so that any thread can take any piece.

Kinds of frame:
  raw           the piece as it is: what does not shrink is not compressed.
  zstd          one zstd frame, level 1.
  zstd-planesN  for pieces of N-byte floating point numbers (N is 2 or 4): the N-1 low byte planes raw, one after the
                other, then the top byte plane as one zstd frame. Mantissas are noise; the top byte, which holds the
                exponent, is not, and literal (Huffman) coding is all that helps it: match search finds only accidents
                that make the result bigger and slower (bfloat16 1.47 at 1.7 GB/s a core; level 9 gives 1.27).
"""

from __future__ import annotations

import numpy as np
import zstandard

from trims.errors import Damaged

RAW, ZSTD = "raw", "zstd"
PLANES = {2: "zstd-planes2", 4: "zstd-planes4"}
_WIDTHS = {kind: width for width, kind in PLANES.items()}
KINDS = (RAW, ZSTD, *_WIDTHS)

# The smallest tables and the longest match there is: nothing is found, everything is Huffman-coded.
_HUFFMAN = zstandard.ZstdCompressionParameters(
    window_log=17, hash_log=6, chain_log=6, search_log=1, min_match=7, strategy=zstandard.STRATEGY_FAST
)
_LEVEL = 1  # higher ones gain nothing on weights and cost up to a hundredfold (measured)


def plane_width(dtype: str) -> int:
    """The width to give `compress` for a tensor of this dtype: 2 or 4 for floating point, 1 for what has no planes."""
    return {"bfloat16": 2, "float16": 2, "float32": 4, "complex64": 4}.get(dtype, 1)


def compress(piece: bytes | memoryview, width: int) -> tuple[str, bytes]:
    """(kind, frame) for a piece of `width`-byte numbers; the piece itself when nothing makes it shorter."""
    if width in PLANES and len(piece) % width == 0:
        planes = np.frombuffer(piece, np.uint8).reshape(-1, width).T
        top = zstandard.ZstdCompressor(compression_params=_HUFFMAN).compress(planes[-1].tobytes())
        kind, frame = PLANES[width], b"".join([*(plane.tobytes() for plane in planes[:-1]), top])
    else:
        kind, frame = ZSTD, zstandard.ZstdCompressor(level=_LEVEL).compress(piece)
    return (kind, frame) if len(frame) < len(piece) else (RAW, bytes(piece))


def decompress(kind: str, frame: bytes | memoryview, out: memoryview) -> None:
    """Fill `out`, as long as the piece was, from a frame. Raises Damaged when the frame is not of that piece."""
    try:
        _decompress(kind, frame, out)
    except (zstandard.ZstdError, ValueError) as error:
        raise Damaged("a compressed frame is damaged", str(error)) from None


def _decompress(kind: str, frame: bytes | memoryview, out: memoryview) -> None:
    if kind == RAW:
        out[:] = frame
    elif kind == ZSTD:
        _inflate(frame, out)
    elif kind in _WIDTHS:
        width = _WIDTHS[kind]
        count, odd = divmod(len(out), width)
        low = (width - 1) * count
        if odd or len(frame) < low:
            raise ValueError("it is too short for its planes")
        items = np.frombuffer(out, np.uint8).reshape(count, width)
        top = bytearray(count)
        _inflate(frame[low:], memoryview(top))
        for n in range(width - 1):
            items[:, n] = np.frombuffer(frame, np.uint8, count, n * count)
        items[:, width - 1] = np.frombuffer(top, np.uint8)
    else:
        raise ValueError(f"its kind {kind!r} is unknown")


def _inflate(frame: bytes | memoryview, out: memoryview) -> None:
    """Decode one zstd frame straight into `out`, which it must fill exactly."""
    reader = zstandard.ZstdDecompressor().stream_reader(frame)
    filled = 0
    while filled < len(out):
        got = reader.readinto(out[filled:])
        if not got:
            raise ValueError(f"it holds {filled} bytes, not {len(out)}")
        filled += got
    if reader.read(1):
        raise ValueError(f"it holds more than {len(out)} bytes")
