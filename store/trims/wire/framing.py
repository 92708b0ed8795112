"""Messages to bytes and back. Any bytes give messages or ProtocolError, nothing else.

A decoder is a peer's whole incoming stream: once it has raised, the stream has no next message, so it goes on raising.
A message that carries a descriptor is sent in one piece with it; the receiver pairs descriptors and Attached messages
in order.
"""

from __future__ import annotations

import functools
import re
from typing import Literal, TypeVar

import msgspec

from trims.errors import ProtocolError
from trims.wire.header import CLIENT_LIMIT, FOREVER, MANAGER_LIMIT, Splitter, pack
from trims.wire.messages import ClientMessage, ManagerMessage, Message

_T = TypeVar("_T")
_ENCODER = msgspec.json.Encoder()
_MANAGER: msgspec.json.Decoder[ManagerMessage] = msgspec.json.Decoder(ManagerMessage)
_SURROGATE = "[\ud800-\udfff]"  # a pattern; hardly ever needed, so not compiled for everybody
_TIMES = ("timeout", "ttl", "expires", "idle")
_TIMED: dict[type, tuple[str, ...]] = {
    cls: names
    for cls in (*ClientMessage.__args__, *ManagerMessage.__args__)
    if (names := tuple(name for name in _TIMES if name in cls.__struct_fields__))
}  # the fields of each message that may be infinite


def encode(message: Message) -> bytes:
    """One frame. Infinite times are written as FOREVER; text that is no UTF-8 loses what cannot be written."""
    names = _TIMED.get(type(message))
    if names is not None:
        endless = {name: FOREVER for name in names if getattr(message, name) == float("inf")}
        if endless:
            message = msgspec.structs.replace(message, **endless)
    try:
        body = _ENCODER.encode(message)
    except UnicodeEncodeError:
        body = _ENCODER.encode(_printable(msgspec.to_builtins(message)))
    return pack(body, CLIENT_LIMIT if isinstance(message, ClientMessage) else MANAGER_LIMIT)


def _printable(value: object) -> object:
    """`value` with every lone surrogate (a byte of a name that is no UTF-8) replaced."""
    if isinstance(value, str):
        return re.sub(_SURROGATE, "\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value


@functools.cache
def _client() -> msgspec.json.Decoder[ClientMessage]:
    """Made for who serves clients: 21 kinds of message, which cost a client 1 ms for nothing."""
    return msgspec.json.Decoder(ClientMessage)


class Decoder:
    """One peer's stream. `kind` says who that peer is: a "client" (the manager decodes it) or a "manager"."""

    __slots__ = ("_decode", "_failed", "_splitter")

    def __init__(self, kind: Literal["client", "manager"]) -> None:
        self._decode = _client().decode if kind == "client" else _MANAGER.decode
        self._splitter = Splitter(CLIENT_LIMIT if kind == "client" else MANAGER_LIMIT)
        self._failed: ProtocolError | None = None

    @property
    def pending(self) -> int:
        """Bytes held of a message that is not complete: at the end of a stream, anything but 0 is a broken peer."""
        return self._splitter.pending

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes, in order.

        Raises ProtocolError for the first thing that is none; good messages before it in the same `data` are lost with
        the connection, as they may not have been answered anyway.
        """
        if self._failed is not None:
            raise self._failed
        try:
            decode = self._decode
            return [decode(body) for body in self._splitter.split(data)]
        except ProtocolError as error:
            self._failed = error
            raise
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._failed = ProtocolError("the peer's message is malformed", str(error))
            raise self._failed from None
