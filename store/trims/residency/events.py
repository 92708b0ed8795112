"""What happened. The manager turns messages, timers and finished work into these and gives them to the machine.

Times are seconds of one monotonic clock, passed in; sizes are bytes; `conn` and `request` identify who to answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # policies are written in terms of Key
    from trims.residency.policies import Policy


class Key(NamedTuple):
    """What can be resident: one form of one model in one place.

    variant: "raw", or the key of a derived form. (A tuple: it is hashed a dozen times for every attach.)
    """

    digest: str
    variant: str
    place: str


@dataclass(frozen=True, slots=True)
class Who:
    """A client, as the kernel knows it: pid with start time (ticks since boot), uid, gid; `job` is its own claim.

    pid 0: a process outside the manager's namespace of processes. container: see `trims.linux.cgroup`.
    """

    pid: int
    started: int
    uid: int
    gid: int = 0
    job: str = ""
    container: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """Common to every request: who asked, under which id, and until when they wait (`inf`: for ever)."""

    conn: int
    request: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Target(Asked):
    """A request about one residency. `ref` is the name it was asked by; `nbytes` what it takes in its place."""

    key: Key
    ref: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Opened:
    """A client connected."""

    conn: int
    who: Who


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection ended, however that happened: all its leases and requests end with it."""

    conn: int


@dataclass(frozen=True, slots=True)
class AttachAsked(Target):
    """Resident and leased, please."""


@dataclass(frozen=True, slots=True)
class Released:
    """A client gave one lease back."""

    conn: int
    lease: int


@dataclass(frozen=True, slots=True)
class WarmAsked(Target):
    """Resident without a lease, please."""

    ttl: float | None = None
    wait: bool = True
    evict: bool = True
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class PinAsked(Target):
    """`expires` is a time of the clock (`inf`: never), not a duration."""

    owner: str = ""
    reason: str = ""
    expires: float = float("inf")


@dataclass(frozen=True, slots=True)
class UnpinAsked(Asked):
    """digest "" means any model, owner "" any owner."""

    digest: str = ""
    ref: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class EvictAsked(Asked):
    """digest "" means by rule: all idle, idle for `idle` seconds, or as many as leave `until_free` bytes free."""

    place: str
    digest: str = ""
    ref: str = ""
    idle: float | None = None
    until_free: int | None = None
    force: bool = False
    wait: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class WaitAsked(Asked):
    """condition is one of warm, gone, idle, attached (of `digest`) and free (of `nbytes`)."""

    condition: str
    place: str
    digest: str = ""
    ref: str = ""
    nbytes: int = 0


@dataclass(frozen=True, slots=True)
class ForgetAsked(Asked):
    """The model is about to leave the store: let go of what is idle, or refuse."""

    digest: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class PolicyAsked(Asked):
    """From now on every place gives up in the order of a fresh one of `policy`."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class StopAsked(Asked):
    """End when the last lease is gone (`drain`), or now."""

    drain: bool = True


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The asker gave up on one request of theirs but keeps the connection."""

    conn: int
    request: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A load finished; `nbytes` is what it really takes."""

    key: Key
    load: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A load ended without a region. `error` is a TrimsError's dictionary (code, what, why, hint, details)."""

    key: Key
    load: int
    error: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Freed:
    """A region's memory is back. measured: bytes by which the use of its place fell, where the place measures that."""

    key: Key
    measured: int | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """A region's memory is gone, and nobody gave it up: the process that owned it has ended."""

    key: Key


@dataclass(frozen=True, slots=True)
class Reserved:
    """Memory of a place that counts but is no residency: spare pages, regions a dead manager left mapped in clients.

    `name` identifies it; nbytes 0 ends it. `spare` bytes are given up when a load needs the room.
    """

    place: str
    name: str
    nbytes: int
    spare: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """From the journal of an earlier life: pin this, or keep it warm (owner ""), and load it now."""

    key: Key
    ref: str
    nbytes: int
    owner: str = ""
    reason: str = ""
    expires: float = float("inf")


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: deadlines, expiries and idle times are looked at."""


Event = (
    Opened | Closed | AttachAsked | Released | WarmAsked | PinAsked | UnpinAsked | EvictAsked | WaitAsked | ForgetAsked
    | PolicyAsked | StopAsked | Cancelled | Loaded | LoadFailed | Freed | Lost | Reserved | Restored | Tick
)  # fmt: skip
