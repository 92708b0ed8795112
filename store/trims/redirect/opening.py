"""Opening the model that stands for a file: by the manager, or without one, and once a process while it is in use."""

from __future__ import annotations

import os
import time
from weakref import WeakValueDictionary

from trims.client import Model
from trims.client import open as open_model
from trims.disk.catalog import Catalog
from trims.disk.known import Known
from trims.errors import Damaged, ManagerNotRunning, ManagerUnreachable, NoSuchModel, TimedOut, TrimsError
from trims.linux import descriptors
from trims.paths import StorePaths
from trims.places import AUTO, DISK, HOST
from trims.redirect import report
from trims.redirect.environment import sees_store, wishes
from trims.redirect.failures import forget

_PATIENCE = 2.0  # seconds to wait for room, which others may never leave: the files serve a program better than that
_QUIET = 5.0  # seconds for which a manager that did not answer is not asked again
_silent: dict[str | None, float] = {}  # by socket: until when
_open: WeakValueDictionary[tuple[int, str], Model] = WeakValueDictionary()


def opened(known: Known) -> Model:
    """The model of a file; one that this process uses already is used again. Raises TrimsError.

    What the manager has no room or no time for is mapped from the store's files, unless a place was asked for.
    Every map keeps a descriptor: they are not to be what the program's own files lack.
    """
    if descriptors.are_scarce():
        raise TrimsError("it is not opened", "the program uses half of its descriptors", "see `ulimit -n`")
    key = (os.getpid(), known.model)
    model = _open.get(key)
    if model is not None and not model.closed:
        return model
    place = wishes().place
    model = _anywhere(known) if place == AUTO else _of(known, place, wishes().timeout)
    _open[key] = model
    return model


def _anywhere(known: Known) -> Model:
    """By the manager, or else by the files. Not by `auto`: its warnings would be the program's, and fatal to some."""
    socket = wishes().socket
    if time.monotonic() < _silent.get(socket, 0.0):
        return _of(known, DISK, wishes().timeout)
    try:
        return _managed(known)
    except (NoSuchModel, Damaged):
        raise
    except TrimsError as error:
        failure = error
    if isinstance(failure, ManagerUnreachable):
        _silent[socket] = time.monotonic() + _QUIET
    try:
        model = _of(known, DISK, wishes().timeout)
    except TrimsError:
        if isinstance(failure, ManagerNotRunning) and sees_store():
            raise  # it is the files that are at fault
        raise failure from None
    forget(failure)  # its frames would keep the model
    if not isinstance(failure, ManagerNotRunning) or failure.details.get("stale"):
        line = f"trims: {known.ref} is shared by its file alone: {failure}"
        report.say(line, f"file {known.model}", wishes().quiet)
    return model


def _managed(known: Known) -> Model:
    """By the manager. While it loads that takes what it takes; for room, only patience is had."""
    longest = wishes().timeout
    try:
        return _of(known, HOST, min(longest, _PATIENCE))
    except TimedOut:  # it goes on loading
        if longest <= _PATIENCE:
            raise
    return _of(known, HOST, longest)


def living() -> list[Model]:
    """The models that something in this process still holds, each once; also from before a fork."""
    return list({digest: model for (_, digest), model in list(_open.items())}.values())  # its own come later


def _of(known: Known, place: str, timeout: float) -> Model:
    """By its name where that still means this model: to find a digest, all names of the store are read."""
    asked = wishes()
    name = known.ref
    if sees_store():  # else it was the manager that told the name, a moment ago
        entry = Catalog(StorePaths(asked.store)).find(known.ref)
        name = known.ref if entry is not None and entry.digest == known.model else f"id:{known.model}"
    model = open_model(name, place, timeout, store=asked.store, socket=asked.socket)
    if model.digest != known.model:  # the name was moved this moment
        model.close()
        model = open_model(f"id:{known.model}", place, timeout, store=asked.store, socket=asked.socket)
    return model
