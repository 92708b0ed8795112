"""What `top` shows, taken once a tick: the index, the rates since the last tick, and the processes behind the leases.

The manager is not asked: its index is a file kept open, and a new manager's file is picked up when it takes the place
of the old one. A process's share of memory (PSS) costs the kernel a walk of its pages, so it is read for few processes
a tick and remembered for a while.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from trims.shmindex.reader import Snapshot
from trims_cli import processes
from trims_cli.output import Item
from trims_cli.settings import Settings
from trims_cli.status import last_eviction
from trims_cli.status import place as place_item
from trims_cli.times import rfc3339
from trims_cli.told import Eye

RATES = {
    "attaches_per_s": ("attaches", 1.0),
    "loaded_bytes_per_s": ("bytes_loaded", 1.0),
    "evictions_per_min": ("evictions", 60.0),
    "refusals_per_min": ("refusals", 60.0),
}
_PSS_AGE = 5.0  # seconds a reading is good for
_PSS_EACH = 8  # readings a tick


@dataclass(frozen=True)
class Sample:
    """One look. `pid` is None when no manager lives; then rows and places are empty."""

    when: float
    pid: int | None = None
    uid: int | None = None
    version: str = ""
    socket: str = ""
    places: tuple[Item, ...] = ()
    rows: tuple[Item, ...] = ()
    rates: dict[str, float | None] = field(default_factory=dict)
    policy: str | None = None
    last_eviction: Item | None = None

    def to_item(self) -> Item:
        """One object of `top --json`."""
        return {
            "schema": "trims.top/1",
            "time": rfc3339(self.when),
            "state": "running" if self.pid is not None else "absent",
            "pid": self.pid,
            "policy": self.policy,
            "last_eviction": self.last_eviction,
            "places": list(self.places),
            "rates": self.rates,
            "items": list(self.rows),
        }


class Sampler:
    """Takes samples. Close it."""

    def __init__(self, settings: Settings) -> None:
        self._indexes = [Eye(socket) for socket in settings.config.sockets]
        self._before: tuple[str, float, dict[str, int]] | None = None
        self._pss: dict[tuple[int, float], tuple[float, int | None]] = {}

    def close(self) -> None:
        for index in self._indexes:
            index.close()

    def take(self) -> Sample:
        """Look now."""
        now = time.time()
        for index in self._indexes:
            snapshot = index.snapshot()
            if snapshot is not None and snapshot.alive:
                rows = processes.rows(snapshot)
                self._add_processes(rows, now)
                return Sample(
                    now, snapshot.pid, snapshot.uid, snapshot.version, snapshot.socket,
                    tuple(place_item(use) for use in snapshot.places), tuple(rows), self._rates(snapshot, now),
                    snapshot.settings.get("policy"), last_eviction(snapshot),
                )  # fmt: skip
        self._before = None
        return Sample(now, rates=dict.fromkeys((*RATES, "hit_ratio")))

    def _rates(self, snapshot: Snapshot, now: float) -> dict[str, float | None]:
        before, self._before = self._before, (snapshot.identity, now, dict(snapshot.counters))
        if before is None or before[0] != snapshot.identity or now <= before[1]:
            return dict.fromkeys((*RATES, "hit_ratio"))
        delta = {name: value - before[2].get(name, 0) for name, value in snapshot.counters.items()}
        seconds = now - before[1]
        rates: dict[str, float | None] = {
            name: delta.get(counter, 0) / seconds * scale for name, (counter, scale) in RATES.items()
        }
        asked = delta.get("hits", 0) + delta.get("misses", 0)
        rates["hit_ratio"] = delta.get("hits", 0) / asked if asked else None
        return rates

    def _add_processes(self, rows: list[Item], now: float) -> None:
        left, seen = _PSS_EACH, set()
        for row in rows:
            pid = row["pid"]
            row["command"] = command(pid) if pid else None
            row["pss"] = None
            if pid is None:
                continue
            key = (pid, row["since"])
            seen.add(key)
            taken, value = self._pss.get(key, (0.0, None))
            if now - taken > _PSS_AGE and left:
                left -= 1
                value = pss(pid)
                self._pss[key] = (now, value)
            row["pss"] = value
        self._pss = {key: reading for key, reading in self._pss.items() if key in seen}


def command(pid: int) -> str | None:
    """The command name of a process, None when it cannot be seen."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return file.read().rstrip(b"\n").decode("utf-8", "backslashreplace")
    except OSError:
        return None


def pss(pid: int) -> int | None:
    """Bytes of memory of a process, with what it shares divided among the sharers; None when it cannot be seen."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
