"""`trims status --prometheus`: what the index says, as Prometheus reads it. Nobody is asked: a scrape costs no manager.

Names are stable: `trims_` and what is measured, `_total` for what only grows, bytes and seconds as units. Without a
manager there is `trims_up 0` and nothing else.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.shmindex.reader import Snapshot

_BYTES = {
    "budget": "May be used.",
    "used": "Is used, spare pages and what is loading included.",
    "pinned": "Resident and pinned.",
    "leased": "Resident and used by clients.",
    "idle": "Resident and unused.",
    "spare": "Kept ready for the next load.",
    "reserved": "Of the budget, and for no model: buffers, other processes, clients of an earlier life.",
}
_GAUGES = ("connections", "queue")
_SIZES = {"bytes_loaded": "loaded_bytes", "bytes_evicted": "evicted_bytes"}


def text(snapshot: Snapshot | None) -> str:
    """The exposition."""
    lines = _metric("up", "gauge", "Whether a manager runs.", [("", int(snapshot is not None))])
    if snapshot is None:
        return "".join(lines)
    labels = _labels(version=snapshot.version, store=snapshot.store, policy=snapshot.settings.get("policy", ""))
    lines += _metric("info", "gauge", "The manager's version, store and policy.", [(labels, 1)])
    lines += _metric("start_time_seconds", "gauge", "When the manager started.", [("", round(snapshot.since, 3))])
    age = max(0.0, time.time() - snapshot.since)
    lines += _metric("uptime_seconds", "gauge", "For how long it has run.", [("", round(age, 3))])
    for field, help in _BYTES.items():
        rows = [(_labels(place=use.place), getattr(use, field)) for use in snapshot.places]
        lines += _metric(f"place_{field}_bytes", "gauge", help, rows)
    counts: dict[tuple[str, str], int] = {}
    for residency in snapshot.residencies:
        key = (residency.place, residency.state)
        counts[key] = counts.get(key, 0) + 1
    rows = [(_labels(place=place, state=state), count) for (place, state), count in sorted(counts.items())]
    lines += _metric("residencies", "gauge", "Models in memory.", rows)
    lines += _metric("leases", "gauge", "Uses of models by clients.", [("", len(snapshot.leases))])
    for name, value in sorted(snapshot.counters.items()):
        if name in _GAUGES:
            lines += _metric(name, "gauge", f"The manager's {name}.", [("", value)])
        else:
            total = _SIZES.get(name, name) + "_total"
            lines += _metric(total, "counter", f"The manager's count of {name}.", [("", value)])
    return "".join(lines)


def _metric(name: str, kind: str, help: str, rows: list[tuple[str, float]]) -> list[str]:
    """The lines of one metric; none when there is nothing to say."""
    if not rows:
        return []
    head = [f"# HELP trims_{name} {help}\n", f"# TYPE trims_{name} {kind}\n"]
    return head + [f"trims_{name}{labels} {value}\n" for labels, value in rows]


def _labels(**values: str) -> str:
    parts = []
    for name, value in values.items():
        printable = value.encode("utf-8", "backslashreplace").decode()
        escaped = printable.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        parts.append(f'{name}="{escaped}"')
    return "{" + ",".join(parts) + "}"
