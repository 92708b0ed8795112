"""When each model was last used, for as long as anybody cares: what outlives residencies, managers and reboots.

One small file a store in the user's state directory, `used/STORE-ID`: a line `DIGEST EPOCH-SECONDS` a model, the least
recently used first, replaced whole by a rename. What a writer knows is joined with what the file says, the later time
winning, so several managers may share it; of the longest memory the newest LIMIT lines are kept. A line that cannot be
read is no line: whoever decides by this file must take an unknown use for a recent one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from trims import config
from trims.linux import atomic

LIMIT = 100_000


def path(store_id: str, environ: Mapping[str, str], what: str = "used") -> str:
    """Where the uses of this store are remembered, or what else has a time: `checked`, the verifications."""
    return f"{config.state_directory(environ)}/{what}/{store_id}"


def read(path: str) -> dict[str, float]:
    """Digest → time of its last use, as far as it is known."""
    found: dict[str, float] = {}
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            for line in file:
                digest, _, when = line.rstrip("\n").partition(" ")
                if len(digest) == 64 and when.isdecimal():
                    found[digest] = max(found.get(digest, 0.0), float(when))
    except OSError:
        return {}
    return found


def merge(path: str, newer: Mapping[str, float], limit: int = LIMIT) -> None:
    """Remember these uses too. Raises OSError."""
    known = read(path)
    for digest, when in newer.items():
        known[digest] = max(known.get(digest, 0.0), when)
    newest = sorted(known.items(), key=lambda item: item[1])[-limit:]
    directory = os.path.dirname(path)
    atomic.make_directory(directory, 0o700)
    text = "".join(f"{digest} {int(when)}\n" for digest, when in newest)
    atomic.replace(path, text.encode(), directory, mode=0o600, durable=False)
