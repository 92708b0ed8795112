"""Manager or files: which way a model is opened, and why.

`auto` takes the first manager that answers its hello in time and serves the same store; anything else that was found at
a socket is a reason, and the files are used with one warning that says it. No manager at all is no reason: silent. A
named place insists, so there the reason is raised.
"""

from __future__ import annotations

import os
import time
import warnings
from functools import lru_cache
from typing import Protocol

from trims import config
from trims.client import connections
from trims.client.attachment import RAW, AnyRegion, Attachment, DirectModeWarning
from trims.client.mapping import Hold, Region
from trims.client.session import Session, SessionLost
from trims.disk.store import Store, open_store
from trims.errors import ManagerNotRunning, ManagerUnreachable, TrimsError, UsageError
from trims.places import AUTO, DISK, HOST, REMOTE, is_gpu, parse_place

_QUIET = 5.0  # seconds for which a socket that did not answer is not tried again by "auto": each try costs the hello
_silent: dict[str, float] = {}
_ENVIRONMENT = (
    "TRIMS_STORE", "TRIMS_SOCKET", "TRIMS_CONFIG", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
    "HOME", "TMPDIR",
)  # fmt: skip


class Backend(Protocol):
    """How the forms of one model are attached."""

    @property
    def store(self) -> Store | None:
        """The store the model is in, where this process can see it."""

    def attach(self, variant: str, prefer: str = "") -> Attachment: ...


class ManagerBackend:
    """One model, by the manager at one socket."""

    __slots__ = ("_digest", "_path", "_place", "_ref", "_timeout", "store")

    def __init__(self, path: str, ref: str, place: str, timeout: float, store: Store | None) -> None:
        self._path, self._ref, self._place, self._timeout = path, ref, place, timeout
        self.store = store
        self._digest = ""

    def attach(self, variant: str, prefer: str = "") -> Attachment:
        """Take a lease and map its region. Once attached, later forms are asked for by digest: a ref may move."""
        name = f"id:{self._digest}" if self._digest else self._ref
        answer, fds, lease = connections.attach(self._path, name, self._place, variant, prefer, self._timeout)
        region: AnyRegion
        if is_gpu(self._place) or answer.slabs:
            from trims.client.device_mapping import attached  # what knows GPUs, for those who use them

            region = attached(answer, fds, lease.release, self._place)
        else:
            region = Region(Hold(fds[0], lease.release), 0, answer.map_nbytes)
            region.read_table(answer.digest, answer.variant, answer.table)
        self._digest = answer.digest
        return Attachment(answer.digest, answer.variant, answer.place, region, answer.how)


def choose(
    ref: str, place: str, prefer: str, timeout: float, store: str | None, socket: str | None
) -> tuple[Backend, Attachment]:
    """The way to the model, and its first form. Raises what stood in the way."""
    default_store, default_sockets = usual()
    root = os.path.abspath(store) if store else default_store
    if place != AUTO:
        place = parse_place(place)
    if place == REMOTE:
        raise UsageError("a model cannot be opened in place remote", "", "use host, disk, auto or a GPU")
    if is_gpu(place):
        from trims.client import gpus

        place = gpus.own(place)
    if place != DISK:
        backend_and_form = _managed(ref, place, prefer, timeout, root, [socket] if socket else default_sockets)
        if backend_and_form is not None:
            return backend_and_form
    from trims.client.direct import (
        DirectBackend,  # loads all that reads containers; a manager's client needs none of it
    )

    backend = DirectBackend(open_store(root), ref)
    return backend, backend.attach("auto", prefer)


def _managed(
    ref: str, place: str, prefer: str, timeout: float, root: str, sockets: list[str]
) -> tuple[Backend, Attachment] | None:
    """The model by the first manager that serves it; None to go on without one."""
    reasons: list[TrimsError] = []
    for path in sockets:
        try:
            here = _store_served(_session(path, place == AUTO, root), root)
            backend = ManagerBackend(path, ref, HOST if place == AUTO else place, timeout, here)
            return backend, backend.attach(RAW if is_gpu(place) else "auto", prefer)  # variants are for processors
        except ManagerNotRunning as error:
            if error.details.get("stale"):
                reasons.append(error)
        except ManagerUnreachable as error:
            reasons.append(error)
    if place != AUTO or (reasons and local_store(root) is None):
        raise reasons[0] if reasons else _not_running(sockets)
    if reasons:
        warnings.warn(f"using {ref} without a manager: {reasons[0]}", DirectModeWarning, stacklevel=4)
    return None


def _not_running(sockets: list[str]) -> ManagerNotRunning:
    return ManagerNotRunning("no manager is running", f"looked at {', '.join(sockets)}", "start one: `trims start`")


def _session(path: str, impatient: bool, root: str) -> Session:
    """The session with the manager at `path`. impatient: not again when it was silent a moment ago.

    The store at `root`, which is needed next, is opened while a new manager takes its time to answer.
    """
    if impatient and time.monotonic() < _silent.get(path, 0.0):
        raise ManagerUnreachable(f"the manager at {path} does not answer", "", "see `trims status`")
    try:
        patience = connections.HELLO_TIMEOUT if impatient else connections.INSISTENT
        return connections.session(path, lambda: local_store(root), patience)
    except SessionLost:
        raise
    except ManagerUnreachable:
        _silent[path] = time.monotonic() + _QUIET
        raise


def _store_served(session: Session, root: str) -> Store | None:
    """The store at `root`, which the manager serves; None where this process sees none: then it takes the manager's.

    Compared once for a session. Raises ManagerUnreachable when the manager serves another one.
    """
    if session.serves is None or session.serves[0] != root:
        here = local_store(root)
        if here is not None and session.welcome.store_id != here.id:
            raise ManagerUnreachable(
                f"the manager at {session.path} serves another store",
                f"it serves {session.welcome.store}, not {root}",
                "name its store with TRIMS_STORE, or another socket with TRIMS_SOCKET",
            )
        session.serves = (root, here)
    return session.serves[1]


def usual() -> tuple[str, list[str]]:
    """(store, sockets) as configured."""
    return _settings(tuple(os.environ.get(name) for name in _ENVIRONMENT))


def local_store(root: str) -> Store | None:
    """The store at `root`, or None when there is none; parsed once for each marker file."""
    try:
        marker = os.stat(os.path.join(root, "store.json"))
    except OSError:
        return None
    return _open_store(root, marker.st_ino, marker.st_mtime_ns)


@lru_cache(maxsize=16)
def _open_store(root: str, inode: int, changed: int) -> Store:
    return open_store(root)


@lru_cache(maxsize=16)
def _settings(environment: tuple[str | None, ...]) -> tuple[str, list[str]]:
    """(store, sockets) as configured: read once for each environment, as files may be involved."""
    # Only what they depend on: to go through a whole environment for names it does not know costs as much again.
    settings = config.load({k: v for k, v in zip(_ENVIRONMENT, environment, strict=True) if v is not None})
    return settings.store, settings.sockets
