"""Places: where bytes are. `remote`, `disk`, `host`, `gpu:<UUID>`; a place is a plain string in canonical form.

A person may also say `gpu`, any GPU; the beginning of a UUID, with `GPU-` before it or without, as `short` shows it,
which the manager completes; or `gpu:N`, the Nth GPU that they see themselves. A number does not leave their process,
since another process may number its GPUs otherwise: `trims.client.gpus` resolves it.
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
_UUID = 36  # characters of a UUID: 32 digits and 4 hyphens
_SHOWN = 8  # those before its first hyphen


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


def gpu_number(place: str) -> int | None:
    """The number that `gpu:N` names a GPU by; None for every other place.

    Fewer than eight decimal digits are a number. Eight are what a UUID is shown by, and those may all be decimal.
    """
    which = gpu_of(place)
    return int(which) if which.isascii() and which.isdecimal() and len(which) < _SHOWN else None


def is_called(uuid: str, which: str) -> bool:
    """Whether `which` is a UUID or its beginning, with or without what says which kind it is of (`GPU-`, `MIG-`)."""
    whole, said = uuid.lower(), which.lower()
    return whole.startswith(said) or whole.partition("-")[2].startswith(said)


def short(place: str) -> str:
    """A place as people are shown it: of a GPU's UUID the first eight digits. Every other place as it is."""
    uuid = gpu_of(place)
    digits = _digits(uuid)
    return place if digits == uuid else f"{_PREFIX}{digits[:_SHOWN]}"


def _digits(uuid: str) -> str:
    """A UUID without `GPU-`; as it is when it is not whole, or has more to it: MIG-GPU-... of drivers before R470."""
    _, _, digits = uuid.partition("-")
    return digits if len(digits) == _UUID and digits[_SHOWN] == "-" else uuid


def rank(place: str) -> int:
    """How near to the computation a place is: remote 0, disk 1, host 2, any GPU 3."""
    return _ORDER.get(place, 3)
