"""JSON that knows whether it is whole: one canonical object whose first key is the checksum of all the others.

The bytes are `{"checksum":"<32 hex>",` + rest + newline, and the checksum is the xxh3_128 of `{` + rest. Keys are
sorted, so every other key must sort after "checksum"; a reader hashes the bytes as they lie, without writing the
object again, and so finds any flipped bit, also one that would leave the meaning alone.
"""

from __future__ import annotations

import json
from typing import Any

from xxhash import xxh3_128_hexdigest

from trims.errors import Damaged

_HEAD = b'{"checksum":"'
_AT = len(_HEAD)
_END = _AT + 32
_REST = _END + 2  # past the closing quote and the comma


def seal(fields: dict[str, object]) -> bytes:
    """The file that holds `fields`."""
    from trims.manifest import canonical_json  # its classes cost 2 ms: for writers only

    body = canonical_json(fields)
    return _HEAD + xxh3_128_hexdigest(body).encode() + b'",' + body[1:] + b"\n"


def unseal(data: bytes, what: str) -> dict[str, Any]:
    """The fields of a sealed file. Raises Damaged, naming `what`, for any byte that is not as it was written."""
    whole = data[:_AT] == _HEAD and data[_END:_REST] == b'",' and data[-1:] == b"\n"
    if not whole or xxh3_128_hexdigest(b"{" + data[_REST:-1]).encode() != data[_AT:_END]:
        raise Damaged(f"{what} is damaged", "its checksum does not match", "import the model again")
    fields: dict[str, Any] = json.loads(data)
    return fields
