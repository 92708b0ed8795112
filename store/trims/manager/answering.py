"""Answers as frames. That of an attach is encoded once a region, but for the numbers that are the attach's own."""

from __future__ import annotations

from typing import Any

import msgspec

from trims.manager.loader import Filled
from trims.residency.events import Key
from trims.wire.framing import encode
from trims.wire.messages import Refused


def refused(request: int, error: dict[str, Any]) -> bytes:
    """The Refused frame of an error's dictionary."""
    code, what, why, hint = (str(error.get(name, "")) for name in ("code", "what", "why", "hint"))
    return encode(Refused(request, code, what, why, hint, dict(error.get("details") or {})))


def answer_tail(key: Key, filled: Filled) -> bytes:
    """What every Attached of this region has in common: the rest of the JSON object."""
    fields: dict[str, Any] = {
        "digest": key.digest,
        "variant": key.variant,
        "place": key.place,
        "map_nbytes": filled.region.nbytes,
        "table": filled.table,
    }
    if filled.region.slabs:
        fields |= {"slabs": filled.region.slabs, "tail": filled.tail}
    if filled.region.ipc:
        fields["ipc"] = filled.region.ipc
    return msgspec.json.encode(fields)[1:]
