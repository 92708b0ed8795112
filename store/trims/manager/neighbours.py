"""Other managers of this machine: the memory that they may fill is not ours to promise.

A manager is found by its index in the user's own runtime directories and the system's; one whose index is not for this
user to read, which is that of all users, is asked. Each subtracts at its start what the living ones may use; none gives
back what it has because another came.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from trims import units
from trims.config import Config, socket_candidates
from trims.errors import NoRoom, TrimsError
from trims.linux import process
from trims.manager.launch import greet
from trims.paths import RuntimePaths
from trims.places import HOST, is_gpu
from trims.shmindex import reader

Log = Callable[[str, str], None]
_PATIENCE = 2.0
"""Seconds that a manager is given to say what it may use."""


class Neighbour(NamedTuple):
    """A manager that runs, how many bytes of host memory it may use, and how many more of each GPU than it does."""

    pid: int
    host: int
    gpus: dict[str, int]


def living(config: Config, own: RuntimePaths) -> list[Neighbour]:
    """The other managers that run now, as far as they can be found."""
    sockets = dict.fromkeys([*config.sockets, *socket_candidates(config.environ, os.getuid())])
    here = os.path.realpath(own.directory)
    others = {os.path.realpath(RuntimePaths(path).directory): path for path in sockets}
    found = [_look(RuntimePaths(path)) for directory, path in sorted(others.items()) if directory != here]
    return [neighbour for neighbour in found if neighbour is not None]


def _look(paths: RuntimePaths) -> Neighbour | None:
    if os.path.exists(paths.index) and not os.access(paths.index, os.R_OK):
        return _ask(paths.socket)
    snapshot = reader.read(paths.index)
    if snapshot is None or not snapshot.alive:
        return None
    budgets = {place.place: (place.budget, place.used) for place in snapshot.places}
    return _neighbour(snapshot.pid, budgets)


def _ask(socket: str) -> Neighbour | None:
    try:
        told = greet(socket, _PATIENCE)
    except TrimsError:  # nobody there, or nobody to be understood
        return None
    budgets = {place: (use.get("budget", 0), use.get("used", 0)) for place, use in told["budgets"].items()}
    return _neighbour(told["pid"], budgets)


def _neighbour(pid: int, budgets: dict[str, tuple[int, int]]) -> Neighbour:
    gpus = {place: max(0, budget - used) for place, (budget, used) in budgets.items() if is_gpu(place)}
    return Neighbour(pid, budgets.get(HOST, (0, 0))[0], gpus)


def gpus_taken(neighbours: Iterable[Neighbour]) -> dict[str, int]:
    """Bytes of each GPU that are free now and that other managers may still fill."""
    taken: Counter[str] = Counter()
    for neighbour in neighbours:
        taken.update(neighbour.gpus)
    return dict(taken)


def host_budget(config: Config, neighbours: Sequence[Neighbour], log: Log) -> int:
    """Our budget of host memory, in bytes. A percentage is of what the neighbours leave.

    Raises NoRoom when they leave nothing, or less than a size that was asked for.
    """
    text = config.text("budget.host")
    memory = process.memory_limit()
    if not neighbours:
        return units.parse_size(text, memory)
    taken = sum(neighbour.host for neighbour in neighbours)
    pids = ", ".join(f"pid {neighbour.pid}" for neighbour in neighbours)
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
