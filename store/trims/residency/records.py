"""The machine's own records. They change only through `core` and the rules; views.py has what others see.

The *kind* of a residency is derived from its state, leases and pins; a place keeps the sum of bytes of each kind, and
all its arithmetic is over those sums:

    physical  = what exists or is being made: all kinds but "promised", and what is reserved
    coming    = what exists and is going without anybody's help: regions being freed, loads being cancelled
    free      = budget - physical + coming + spare being shrunk - promised: what a new plan may count on
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from trims.residency.events import (
    AttachAsked,
    EvictAsked,
    ForgetAsked,
    Key,
    PinAsked,
    StopAsked,
    WaitAsked,
    WarmAsked,
    Who,
)
from trims.residency.history import Cause
from trims.residency.policies import Policy
from trims.residency.states import ABSENT

NO_CAUSE = Cause("")
Ask = tuple[int, int]
"""A request: (connection, its id)."""

GONE = "gone"  # absent
PROMISED = "promised"  # loading, but the Load waits until its bytes are free
MOVING = "moving"  # loading
PINNED = "pinned"  # resident, and pinned
LEASED = "leased"  # resident, leased, not pinned
IDLE = "idle"  # resident, and may be a victim
YOUNG = "young"  # the same, but it came too short a while ago to be a victim of somebody's request
COMING = "coming"  # doomed, and on its way out without anybody's help
HELD = "held"  # doomed, but leased
UNHELD = frozenset((IDLE, YOUNG))
"""The kinds that a place's policy may yield."""
KNOWN = UNHELD | {PINNED, LEASED}
"""The kinds that a place's policy knows."""
KINDS = (PROMISED, MOVING, PINNED, LEASED, IDLE, YOUNG, COMING, HELD)


@dataclass(frozen=True, slots=True)
class Pin:
    """A hold without a client."""

    owner: str
    reason: str
    expires: float


@dataclass(slots=True)
class Waiter:
    """A request for residence that has not been answered, or (silent) whose asker needs no answer any more.

    pin, previous: the pin it has set, and the one which that replaced, to put back if this request is refused.
    first: nobody else wanted it when it was asked for, so that the load is this request's doing.
    """

    ask: Ask
    event: AttachAsked | WarmAsked | PinAsked
    who: Who
    since: float
    silent: bool = False
    first: bool = False
    pin: Pin | None = None
    previous: Pin | None = None


@dataclass(slots=True)
class Watch:
    """A request that waits for something to become true.

    subject: the digest it is about, "" for a place or for everything. acted: an eviction has been
    decided, or what is waited for has been so. left: the keys whose going it still awaits. items: its answer.
    """

    event: EvictAsked | ForgetAsked | WaitAsked | StopAsked
    who: Who
    acted: bool = False
    left: set[Key] = field(default_factory=set)
    items: tuple[dict[str, object], ...] = ()

    @property
    def ask(self) -> Ask:
        return (self.event.conn, self.event.request)

    @property
    def subject(self) -> str:
        return "" if isinstance(self.event, StopAsked) else self.event.digest


@dataclass(slots=True)
class Client:
    """A connection: who it is, and its requests that are not answered."""

    who: Who
    asks: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class Residency:
    """One key that is there, or that somebody wants.

    load: the number of the Load in flight. freeing: Free has gone out. wanted: of the warm set.
    source: what that load reads from, if not the disk. readers: how many loads read from this one.
    ripe: it has been resident for as long as nobody's request may take it. timed: its time to live is running.
    kind, counted: under which kind, and with how many bytes, its place counts it now.
    """

    key: Key
    ref: str
    nbytes: int
    ttl: float
    state: str = ABSENT
    load: int = 0
    source: Key | None = None
    readers: int = 0
    freeing: bool = False
    wanted: bool = False
    pins: dict[str, Pin] = field(default_factory=dict)
    waiters: dict[Ask, Waiter] = field(default_factory=dict)
    victims: tuple[dict[str, object], ...] = ()
    hits: int = 0
    since: float = 0.0
    last_use: float = 0.0
    load_began: float = 0.0
    load_seconds: float = 0.0
    load_cause: Cause = NO_CAUSE
    ripe: bool = True
    timed: bool = False
    kind: str = GONE
    counted: int = 0

    @property
    def may_evict(self) -> bool:
        """Whether any of those who want it lets others be evicted for it."""
        return bool(self.pins) or any(getattr(w.event, "evict", True) for w in self.waiters.values())

    def live_waiters(self) -> list[Waiter]:
        """Those whose asker still expects an answer."""
        return [w for w in self.waiters.values() if not w.silent]


@dataclass(slots=True)
class Place:
    """One place's budget and what stands in it.

    existing: the sum of all kinds but "promised".
    line: absent ones that wait for room, first come first served. promised: planned ones that wait for bytes to be
    freed. parked: restored ones that found no room; they are tried again when there is some and nobody else waits.
    head, overtakers: the first in the line whose turn it is, and the bytes of those that have started before it since.
    ripening: when which residencies (loaded at which time) become ripe, soonest first; some may be gone since.
    over: more exists than the budget, and all of it is held.
    largest: the largest that are there, while that is known: it takes a look at all of them.
    excused: the bytes that others put over the budget (a dead manager's regions), to tell it from our own doing.
    """

    name: str
    budget: int
    pin_cap: int
    policy: Policy
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    existing: int = 0
    reserved: dict[str, tuple[int, bool]] = field(default_factory=dict)
    shrinking: int = 0
    line: dict[Key, Residency] = field(default_factory=dict)
    promised: dict[Key, Residency] = field(default_factory=dict)
    parked: dict[Key, Residency] = field(default_factory=dict)
    head: Key | None = None
    overtakers: dict[Key, int] = field(default_factory=dict)
    ripening: deque[tuple[float, Residency, float]] = field(default_factory=deque)
    excused: int = 0
    over: bool = False
    largest: list[Residency] | None = None

    @property
    def busy(self) -> bool:
        """Whether somebody waits for room here, so that what a client holds or lets go matters at once."""
        return bool(self.line or self.promised or self.parked) or self.over

    @property
    def spare(self) -> int:
        return sum(nbytes for nbytes, spare in self.reserved.values() if spare)

    @property
    def orphaned(self) -> int:
        """Reserved bytes that cannot be given up."""
        return sum(nbytes for nbytes, spare in self.reserved.values() if not spare)

    @property
    def physical(self) -> int:
        """Everything that exists or is being made."""
        return self.existing + (sum(nbytes for nbytes, _ in self.reserved.values()) if self.reserved else 0)

    @property
    def free(self) -> int:
        return self.budget - self.physical + self.sums[COMING] + self.shrinking - self.sums[PROMISED]

    @property
    def spare_left(self) -> int:
        """Spare bytes that have not been asked for yet."""
        return max(0, self.spare - self.shrinking)
