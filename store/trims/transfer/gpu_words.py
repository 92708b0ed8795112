"""What a manager and the worker of one of its GPUs say to each other: one JSON object a packet, descriptors beside it.

The sockets are pairs that the manager made, so each trusts the other; the manager's closing the first ends the worker.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from trims.errors import TrimsError, rebuild


class Work(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fill a region. Its slabs' descriptors come along, unless the worker owns it, then those of what to copy from.

    container, sidecar: paths. host: bytes of the host region to copy from, and its inode. peer: UUID of the GPU to copy
    from, and the sizes of the slabs there. own: the number of the region that the worker owns.
    """

    slabs: list[int]
    container: str
    sidecar: str
    host: tuple[int, int] | None = None
    peer: str = ""
    peer_slabs: list[int] = []
    own: int = 0


class Cancel(msgspec.Struct, frozen=True, tag="cancel", tag_field="do"):
    """The work in hand is not wanted any more: end it soon. It is answered all the same."""


class Drop(msgspec.Struct, frozen=True, tag="drop", tag_field="do"):
    """Keep nothing of the host region with this inode. Comes, and is answered with Done, by the second socket."""

    inode: int


class Allocate(msgspec.Struct, frozen=True, tag="allocate", tag_field="do"):
    """Own new memory, of this number and so many bytes. Answered with Done, which has its handle."""

    number: int
    nbytes: int


class Free(msgspec.Struct, frozen=True, tag="free", tag_field="do"):
    """Give that memory up. Answered with Done."""

    number: int


class Task(msgspec.Struct, frozen=True, tag="work", tag_field="do"):
    """Work to do; one at a time."""

    work: Work


class Ready(msgspec.Struct, frozen=True, tag="ready", tag_field="do"):
    """The worker's first word: it can use the GPU. Failed is its first, and last, when it cannot."""


class Step(msgspec.Struct, frozen=True, tag="step", tag_field="do"):
    """So many bytes are done. At most ten a second."""

    done: int


class Done(msgspec.Struct, frozen=True, tag="done", tag_field="do", omit_defaults=True):
    """It is done. way: what was copied from. handle: of new memory, hexadecimal, for legacy IPC."""

    way: str = ""
    handle: str = ""


class Failed(msgspec.Struct, frozen=True, tag="failed", tag_field="do"):
    """It is not; the fields of a TrimsError. last: the worker ends."""

    code: str
    what: str
    why: str = ""
    hint: str = ""
    details: dict[str, object] = {}
    last: bool = False

    @classmethod
    def of(cls, error: TrimsError, last: bool = False) -> Failed:
        return cls(error.code, error.what, error.why, error.hint, error.details, last)

    def error(self) -> TrimsError:
        return rebuild(self.code, self.what, self.why, self.hint, self.details)


Asked = Task | Cancel | Drop | Allocate | Free
Told = Ready | Step | Done | Failed
LONGEST = 1 << 16
"""Bytes of one packet at most: two paths, or an error."""
encode = msgspec.json.encode
decode_asked: Callable[[bytes], Asked] = msgspec.json.Decoder(Asked).decode
decode_told: Callable[[bytes], Told] = msgspec.json.Decoder(Told).decode
