"""Other managers of this machine: the memory that they may fill is not ours to promise.

A manager is found by its index, where this user can read it: the user's own runtime directories and the system's. Each
subtracts at its start what the living ones may use; none gives back what it has because another came.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from trims import units
from trims.config import Config, socket_candidates
from trims.errors import NoRoom
from trims.linux import process
from trims.paths import RuntimePaths
from trims.places import HOST
from trims.shmindex import reader
from trims.shmindex.reader import Snapshot

Log = Callable[[str, str], None]


def living(config: Config, own: RuntimePaths) -> list[Snapshot]:
    """The other managers that run now, as far as their indexes can be read."""
    sockets = dict.fromkeys([*config.sockets, *socket_candidates(config.environ, os.getuid())])
    others = {os.path.realpath(RuntimePaths(path).index) for path in sockets} - {os.path.realpath(own.index)}
    found = [reader.read(path) for path in sorted(others)]
    return [snapshot for snapshot in found if snapshot is not None and snapshot.alive]


def host_budget(config: Config, own: RuntimePaths, log: Log) -> int:
    """Our budget of host memory, in bytes. A percentage is of what the neighbours leave.

    Raises NoRoom when they leave nothing, or less than a size that was asked for.
    """
    text = config.text("budget.host")
    memory = process.memory_limit()
    neighbours = living(config, own)
    if not neighbours:
        return units.parse_size(text, memory)
    taken = sum(place.budget for snapshot in neighbours for place in snapshot.places if place.place == HOST)
    pids = ", ".join(f"pid {snapshot.pid}" for snapshot in neighbours)
    log(f"other managers ({pids}) may use {units.format_size(taken)} of the same memory", "info")
    left = memory - taken
    budget = units.parse_size(text, max(left, 0))
    if left <= 0 or budget > left:
        raise NoRoom(
            "there is no memory for another manager",
            f"{units.format_size(max(left, 0))} is left beside {pids} with budgets of {units.format_size(taken)}",
            "stop one of them, or give it less with --host-budget",
        )
    return budget
