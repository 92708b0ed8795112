"""The store and the index as a manager tells of them, for those who cannot read the files: users of a shared manager,
and programs in containers that see nothing but its socket. What comes has the shape of what is read.
"""

from __future__ import annotations

import os

from trims.errors import ManagerNotRunning, ManagerUnreachable, NoStore, NoSuchModel, NotPermitted, TrimsError
from trims.paths import RuntimePaths

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.client.control import Control
    from trims.shmindex.reader import Snapshot
    from trims_cli.output import Item
    from trims_cli.selection import Row
    from trims_cli.settings import Settings

_WAIT = 30.0
_PAGE = 1000
CANNOT_READ = (NoStore, NotPermitted)
"""What opening a store raises that only its manager can read."""


def manager(settings: Settings, error: TrimsError) -> Control:
    """The manager to ask where the store cannot be read, which `error` says. Raises that when there is none for it.

    A store that was named has to be the manager's; otherwise the manager's is as good as any.
    """
    from trims.client.control import Control

    try:
        control = Control(settings.config.sockets)
    except (ManagerNotRunning, ManagerUnreachable):
        raise error from None
    named = settings.config.origin("store.path") != "default"
    if named and os.path.realpath(control.welcome["store"]) != os.path.realpath(settings.config.store):
        control.close()
        raise error
    return control


def blame_the_store(settings: Settings, control: Control, errors: list[TrimsError]) -> None:
    """Where the manager has no such model, and is not of the store that is looked at here: say so."""
    missing = [error for error in errors if isinstance(error, NoSuchModel)]
    ours = settings.config.store
    if missing and readable(ours) and os.path.realpath(control.welcome["store"]) != os.path.realpath(ours):
        for error in missing:
            error.why = f"the manager at {control.socket_path} serves {control.welcome['store']}, not {ours}"
            error.hint = "see `trims status`; TRIMS_SOCKET names another manager"


def rows(control: Control) -> list[Row]:
    """Every model that we may read, by ref, as the store's own snapshot has them."""
    from trims_cli.output import to_json

    found: list[Row] = []
    after, more = "", True
    while more:
        head, *items = control.request("list", wait=_WAIT, after=after, limit=_PAGE)
        for item in items:
            fields = {"name": item.pop("ref"), "id": item.pop("digest"), **item}
            fields = {key: value for key, value in fields.items() if value is not None or key not in _WHOSE}
            found.append((fields["id"], fields["name"], to_json(fields)[:-1]))
        more = bool(head["more"] and items)
        after = found[-1][1] if found else ""
    return found


_WHOSE = ("owner", "group", "mode")


def readable(root: str) -> bool:
    """Whether we can read the store at `root` ourselves."""
    return os.access(f"{root}/store.json", os.R_OK)


def hidden(socket: str) -> bool:
    """Whether a manager may be there whose index we cannot open."""
    return os.path.exists(socket) and not os.access(RuntimePaths(socket).index, os.R_OK)


def index(socket: str) -> Snapshot | None:
    """What the manager's index says, as far as we may know; None when none can be asked."""
    from trims.client.control import Control

    try:
        with Control([socket], 1.0) as control:
            return look_if_told(control)
    except (ManagerNotRunning, ManagerUnreachable):
        return None


def look_if_told(control: Control) -> Snapshot | None:
    """The index of this manager; None where it does not tell: it has lost it, or is of an earlier version."""
    try:
        return look(control)
    except TrimsError:
        return None


def look(control: Control) -> Snapshot:
    """The index of this manager, page by page."""
    from trims.shmindex.reader import Lease, PlaceUse, Residency, Snapshot

    after: int | None = 0
    found: list[Item] = []
    head: Item = {}
    while after is not None:
        head, *page = control.request("look", wait=_WAIT, after=after, limit=_PAGE)
        found += page
        after = head["next"]
    told = Snapshot()
    for name in ("pid", "uid", "started", "since", "identity", "version", "socket", "store", "generation"):
        setattr(told, name, head[name])
    told.alive, told.counters, told.settings = True, head["counters"], head["settings"]
    told.places = [PlaceUse(**place) for place in head["places"]]
    told.residencies, told.leases = [], []
    for row in found:
        residency = Residency.__new__(Residency)
        for name in Residency.__slots__:
            value = row[name]
            setattr(residency, name, float("inf") if value is None else value)
        told.residencies.append(residency)
        for held in row["held"]:
            lease = Lease.__new__(Lease)
            for name, value in {**held, "residency_slot": row["slot"], "serial": row["serial"]}.items():
                setattr(lease, name, value)
            told.leases.append(lease)
    return told


class Eye:
    """One place where a manager may be, looked at again and again."""

    __slots__ = ("_control", "_index", "_socket")

    def __init__(self, socket: str) -> None:
        from trims.shmindex.reader import Index

        self._socket, self._index = socket, Index(RuntimePaths(socket).index)
        self._control: Control | None = None

    def close(self) -> None:
        self._index.close()
        self._leave()

    def snapshot(self) -> Snapshot | None:
        """What is there now; None when there is nobody, or nobody to be understood."""
        found = self._index.snapshot()
        if found is not None or not hidden(self._socket):
            self._leave()
            return found
        from trims.client.control import Control

        try:
            if self._control is None:
                self._control = Control([self._socket], 1.0)
            return look(self._control)
        except TrimsError:
            self._leave()
            return None

    def _leave(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
