"""What to do about it. The machine returns these in order; the executor performs them and reports results as events."""

from __future__ import annotations

from dataclasses import dataclass

from trims.residency.events import Key


@dataclass(frozen=True, slots=True)
class Load:
    """Bring a residency's bytes into its place; answer with Loaded or LoadFailed of the same `load` number.

    source: another place where the same bytes are resident, and stay so until the answer; "" means the disk.
    """

    key: Key
    load: int
    ref: str
    nbytes: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants this load any more: stop it soon. It still ends in LoadFailed, or Loaded if that was faster."""

    key: Key
    load: int


@dataclass(frozen=True, slots=True)
class Free:
    """Give the region up, then report Freed."""

    key: Key


@dataclass(frozen=True, slots=True)
class Grant:
    """Answer an attach: the lease, with the region's descriptor.

    how: "hit" (it was resident when it was asked for), "loaded" (this request began the load) or "joined" (it waited
    for a load that somebody else began).
    """

    conn: int
    request: int
    lease: int
    key: Key
    how: str = "hit"


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a request with plain items (the Result message)."""

    conn: int
    request: int
    items: tuple[dict[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer a request with an error: a TrimsError's dictionary."""

    conn: int
    request: int
    error: dict[str, object]


@dataclass(frozen=True, slots=True)
class ShrinkSpare:
    """Give `nbytes` of the place's spare pages back; report Reserved with what is left."""

    place: str
    nbytes: int


@dataclass(frozen=True, slots=True)
class Publish:
    """This residency, or its leases, changed: bring its slot of the index up to date (it may be gone)."""

    key: Key


@dataclass(frozen=True, slots=True)
class Journal:
    """The pins or the warm set changed: write them down."""


@dataclass(frozen=True, slots=True)
class Log:
    """One line for the manager's log. `level` is debug, info or warning."""

    text: str
    level: str = "info"


@dataclass(frozen=True, slots=True)
class Exit:
    """The manager ends now."""


Effect = Load | Cancel | Free | Grant | Reply | Refuse | ShrinkSpare | Publish | Journal | Log | Exit
