"""Places: where bytes are. `remote`, `disk`, `host`, `gpu:<UUID>`; a place is a plain string in canonical form."""

from __future__ import annotations

from trims.errors import UsageError

REMOTE = "remote"
DISK = "disk"
HOST = "host"
AUTO = "auto"
_ORDER = {REMOTE: 0, DISK: 1, HOST: 2}


def parse_place(text: str) -> str:
    """The canonical place of `text`. Raises UsageError."""
    place = text.strip()
    if place in _ORDER:
        return place
    kind, _, which = place.partition(":")
    if kind == "gpu" and which and which.isprintable() and " " not in which and len(which) <= 64:
        return f"gpu:{which}"
    raise UsageError(f"no place {text!r}", "", "places are host, disk, remote and gpu:<UUID>")


def rank(place: str) -> int:
    """How near to the computation a place is: remote 0, disk 1, host 2, any GPU 3."""
    return _ORDER.get(place, 3)
