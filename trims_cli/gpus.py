"""GPUs as people name them: a number, which is one in their own view, becomes a UUID before it leaves this process.

The driver is looked for only where a number was given. A UUID, or the beginning of one, is for the manager to know:
it may have GPUs that this process does not see.
"""

from __future__ import annotations

from trims import places
from trims.errors import UsageError

_WORDS = ("auto", "none")


def place(text: str) -> str:
    """The place that a person named, as it goes to the manager. Raises UsageError, or DeviceLost when it has to know
    the GPUs of this process and there is no driver, or no such GPU.
    """
    found = places.parse_place(text)
    if found in (places.DISK, places.REMOTE):
        raise UsageError(f"no model is resident on {found}", "", "say host, gpu, gpu:N or gpu:<UUID>")
    if places.gpu_number(found) is None:
        return found
    from trims.client import gpus

    return str(gpus.resolve(found))


def devices(text: str) -> str:
    """A list of GPUs for `gpu.devices`, its numbers as UUIDs. Raises as `place` does."""
    words = [word.strip() for word in text.split(",")]
    if len(words) == 1 and words[0] in _WORDS:
        return words[0]
    if not all(words) or set(words) & {*_WORDS}:
        raise UsageError(f"bad list of GPUs {text!r}", "", "use auto, none, or numbers and UUIDs with commas")
    return ",".join(dict.fromkeys(places.gpu_of(place(places.gpu_place(word))) for word in words))
