"""Places: where bytes are. `remote`, `disk`, `host`, `gpu:<UUID>`; a place is a plain string in canonical form.

A person may also say `gpu`, any GPU, or `gpu:N`, the Nth that they see themselves; neither leaves their process as it
is, since another process may number its GPUs otherwise: `trims.client.gpus` resolves them.
"""

from __future__ import annotations

from trims.errors import UsageError

REMOTE = "remote"
DISK = "disk"
HOST = "host"
AUTO = "auto"
GPU = "gpu"
"""Any GPU: of a request to the manager, the one where the model is, else the one with most room."""
_ORDER = {REMOTE: 0, DISK: 1, HOST: 2}
_PREFIX = "gpu:"


def parse_place(text: str) -> str:
    """The canonical place of `text`. Raises UsageError."""
    place = text.strip()
    if place in _ORDER or place == GPU:
        return place
    kind, _, which = place.partition(":")
    if kind == GPU and which and which.isprintable() and " " not in which and len(which) <= 64:
        return f"{_PREFIX}{which}"
    raise UsageError(f"no place {text!r}", "", "places are host, disk, remote, gpu, gpu:N and gpu:<UUID>")


def gpu_place(uuid: str) -> str:
    """The place of the GPU (or MIG slice) with this UUID, as the driver writes it: `GPU-...` or `MIG-...`."""
    return _PREFIX + uuid


def is_gpu(place: str) -> bool:
    """Whether a place is a GPU, a certain one or any."""
    return place == GPU or place.startswith(_PREFIX)


def gpu_of(place: str) -> str:
    """What follows `gpu:`: a UUID, the beginning of one, or a number; "" for any GPU and for what is none."""
    return place[len(_PREFIX) :] if place.startswith(_PREFIX) else ""


def rank(place: str) -> int:
    """How near to the computation a place is: remote 0, disk 1, host 2, any GPU 3."""
    return _ORDER.get(place, 3)
