"""Frames: how one message is cut out of a stream. Needs nothing but struct, so the lightest clients use it too.

A frame is the magic, the version, three zero bytes, the length of its body (little-endian, 32 bits), and the body, one
JSON object. Magic and version come first in every frame, so a stranger or another version is known by its first bytes,
before anything else of it is believed.
"""

from __future__ import annotations

import struct

from trims.errors import ProtocolError

MAGIC = b"TRMS"
VERSION = 1
"""The protocol's version; a peer of another one is refused by both sides, naming both."""
HEADER = struct.Struct("<4sB3sI")
_ZEROS = b"\0\0\0"

CLIENT_LIMIT = 1 << 20
"""The longest body a client may send: a request is a few hundred bytes."""
MANAGER_LIMIT = 64 << 20
"""The longest body a manager may send: a result with an item for each of 100,000 residencies fits."""
FOREVER = 1e308
"""What stands for an infinite time: JSON has no infinity."""


def pack(body: bytes, limit: int = CLIENT_LIMIT) -> bytes:
    """The frame around `body`. Raises ProtocolError when the peer would refuse its length."""
    if len(body) > limit:
        raise ProtocolError("a message cannot be sent", f"it is {len(body)} bytes long, the limit is {limit}")
    return HEADER.pack(MAGIC, VERSION, _ZEROS, len(body)) + body


class Splitter:
    """Cuts a stream into bodies, however the bytes arrive. After an error it takes no more."""

    __slots__ = ("_buffer", "_limit", "_need")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._need = 0  # bytes of the whole frame at the buffer's head once its header is known, else 0

    @property
    def pending(self) -> int:
        """Bytes held of a message that is not complete."""
        return len(self._buffer)

    def split(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes, in order. Raises ProtocolError for bytes that start no frame."""
        if not self._buffer and len(data) >= HEADER.size:
            magic, version, zeros, nbytes = HEADER.unpack_from(data)
            whole = len(data) == HEADER.size + nbytes and nbytes <= self._limit
            if whole and magic == MAGIC and version == VERSION and zeros == _ZEROS:
                return [data[HEADER.size :]]  # just one message, whole: nearly always
        self._buffer += data
        bodies: list[bytes] = []
        at = 0
        while True:
            if not self._need:
                self._need = self._length(at)
            if not self._need or len(self._buffer) - at < self._need:
                break
            bodies.append(bytes(self._buffer[at + HEADER.size : at + self._need]))
            at += self._need
            self._need = 0
        if at:
            del self._buffer[:at]
        return bodies

    def _length(self, at: int) -> int:
        """The length of the frame that begins at `at`, 0 while its header is incomplete; checked as early as can be."""
        head = bytes(self._buffer[at : at + HEADER.size])
        if head[:4] != MAGIC[: len(head)]:
            raise ProtocolError("the peer speaks no trims", f"its bytes begin with {head[:4]!r}")
        if len(head) > 4 and head[4] != VERSION:
            raise ProtocolError(
                f"the peer speaks version {head[4]} of the protocol", f"this trims speaks version {VERSION}"
            )
        if len(head) < HEADER.size:
            return 0
        _, _, zeros, nbytes = HEADER.unpack(head)
        if zeros != _ZEROS:
            raise ProtocolError("the peer's message is malformed", "its header has reserved bytes that are not zero")
        if nbytes > self._limit:
            raise ProtocolError("the peer's message is too long", f"{nbytes} bytes, the limit is {self._limit}")
        return HEADER.size + int(nbytes)
