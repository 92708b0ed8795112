"""What outlives the manager: its pins, its warm set, its counters, and what dead managers left mapped in clients.

One small file beside the socket, replaced whole by a rename and written by a thread; a reader sees the old or the new
one. Not promised: that the last tenth of a second before a kill is in it. Times in it are times of day.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from trims.linux import atomic
from trims.residency.machine import Machine

FORMAT = "trims.journal/1"


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pin (`owner` set), or one of the warm set. expires: epoch seconds, None for never."""

    digest: str
    variant: str
    place: str
    ref: str
    owner: str = ""
    reason: str = ""
    expires: float | None = None


class Orphan(msgspec.Struct, frozen=True):
    """A region of a dead manager that processes still have mapped: (pid, start time) of each."""

    name: str
    place: str
    nbytes: int
    holders: list[tuple[int, int]]
    ref: str = ""


class State(msgspec.Struct, frozen=True, omit_defaults=True):
    """The whole journal."""

    format: str = ""
    kept: list[Kept] = []
    counters: dict[str, int] = {}
    orphans: list[Orphan] = []


def read(path: str) -> State:
    """The journal at `path`; an empty one when there is none, or none that can be understood."""
    try:
        with open(path, "rb") as file:
            state = msgspec.json.decode(file.read(), type=State)
    except (OSError, msgspec.MsgspecError, ValueError):
        return State()
    return state if state.format == FORMAT else State()


def write(path: str, state: State) -> None:
    """Replace the journal. Raises OSError."""
    atomic.replace(path, msgspec.json.encode(state), os.path.dirname(path), mode=0o600, durable=False)


def take(machine: Machine, orphans: Iterable[Orphan], earlier: Mapping[str, int], pins_only: bool = False) -> State:
    """What is worth keeping of `machine` now. pins_only: after a stop that was asked for, nothing stays warm."""
    offset = time.time() - time.monotonic()
    kept = [
        Kept(*_key(pin), pin.ref, pin.owner, pin.reason, None if pin.expires == float("inf") else pin.expires + offset)
        for pin in machine.pins()
    ]
    if not pins_only:
        kept += [Kept(key.digest, key.variant, key.place, ref) for key, ref in machine.warm_set()]
    counters = {name: value + earlier.get(name, 0) for name, value in machine.counters.items()}
    return State(FORMAT, kept, counters, list(orphans))


def _key(of: Any) -> tuple[str, str, str]:
    return of.key.digest, of.key.variant, of.key.place
