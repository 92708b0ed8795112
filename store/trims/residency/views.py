"""What others may see of the machine: frozen copies, so that nobody outside can change its state."""

from __future__ import annotations

from dataclasses import dataclass

from trims.residency.events import Key
from trims.residency.leases import LeaseView

__all__ = ["HistoryView", "LeaseView", "PinView", "PlaceUse", "ResidencyView"]


@dataclass(frozen=True, slots=True)
class ResidencyView:
    """One residency that is not absent.

    state: loading, resident or doomed. leases, pins: how many. hits: attaches that found it resident.
    since: when it entered its state. last_use: end of the last lease, or the last attach. expires: when its time to
    live ends (inf while it is leased, pinned or loading). load: the number of its Load in flight, 0 when none is.
    """

    key: Key
    ref: str
    state: str
    nbytes: int
    leases: int
    pins: int
    hits: int
    since: float
    last_use: float
    expires: float
    load_seconds: float
    load: int = 0


@dataclass(frozen=True, slots=True)
class PinView:
    """One pin. `expires` is a time of the clock; a pin may wait for its model to be loaded."""

    key: Key
    ref: str
    owner: str
    reason: str
    expires: float


@dataclass(frozen=True, slots=True)
class PlaceUse:
    """Bytes of one place.

    used: everything that exists there, `spare` and `reserved` included; free is budget - used. pinned, leased, idle:
    resident bytes, each counted once, pinned before leased; doomed ones that are still held count as leased; what is
    loading or being freed is in `used` alone.
    """

    budget: int
    used: int
    pinned: int
    leased: int
    idle: int
    spare: int
    reserved: int


@dataclass(frozen=True, slots=True)
class HistoryView:
    """One thing that happened to a residency, at `time` of the machine's clock.

    what: loaded, load failed, load cancelled, evicted, doomed (given up, but clients hold it), freed (a doomed one,
    when the last let go), expired, pinned, unpinned, pin expired.
    why: in words: for whom room was needed, an error, a pin's reason. by: who asked (`pid 12`), or a pin's owner; ""
    for the manager's own rules. policy, rank, of: which policy chose a victim, and as which of how many.
    nbytes: its size. seconds: how long the load took, or how long what went had been resident.
    """

    time: float
    place: str
    variant: str
    what: str
    why: str
    by: str
    policy: str
    rank: int
    of: int
    ref: str
    digest: str
    nbytes: int
    seconds: float
