"""Who is resident, without asking the manager: its index, found beside each socket a manager may listen on.

`look` gives the snapshot of the first living manager. A wedged manager looks alive here: it holds its lock. What the
index says about a dead one is never used, except to know that there was one.
"""

from __future__ import annotations

import os

from trims.paths import RuntimePaths

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.shmindex.reader import Residency, Snapshot
    from trims_cli.settings import Settings


def look(settings: Settings) -> Snapshot | None:
    """The index of the first living manager among the candidates, or None."""
    for socket in settings.config.sockets:
        path = RuntimePaths(socket).index
        if not os.access(path, os.R_OK):
            snapshot = _told(socket) if os.path.exists(socket) else None
            if snapshot is not None:
                return snapshot
            continue
        from trims.shmindex import reader  # 1 ms that is spared where no manager has ever run

        snapshot = reader.read(path)
        if snapshot is not None and snapshot.alive:
            return snapshot
    return None


def _told(socket: str) -> Snapshot | None:
    """By word of a manager whose index is not ours to read, such as one that all users share."""
    from trims_cli import told

    return told.index(socket)


def serves(snapshot: Snapshot | None, store: str) -> bool:
    """Whether it is the manager of this very store."""
    return snapshot is not None and os.path.realpath(snapshot.store) == os.path.realpath(store)


def by_digest(snapshot: Snapshot) -> dict[str, list[Residency]]:
    """What is resident of each model."""
    found: dict[str, list[Residency]] = {}
    for residency in snapshot.residencies:
        found.setdefault(residency.digest, []).append(residency)
    return found
