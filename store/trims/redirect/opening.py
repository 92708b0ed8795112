"""Opening the model that stands for a file: by the manager, or without one, and once a process while it is in use."""

from __future__ import annotations

import os
from weakref import WeakValueDictionary

from trims.client import Model
from trims.client import open as open_model
from trims.errors import Damaged, NoSuchModel, TrimsError
from trims.places import AUTO, DISK
from trims.redirect.environment import wishes

_open: WeakValueDictionary[tuple[int, str], Model] = WeakValueDictionary()


def opened(digest: str) -> Model:
    """The model of that digest; one that this process uses already is used again. Raises TrimsError.

    What the manager has no room or no time for is mapped from the store's files, unless a place was asked for.
    """
    key = (os.getpid(), digest)
    known = _open.get(key)
    if known is not None and not known.closed:
        return known
    asked = wishes()
    try:
        model = _of(digest, asked.place)
    except (NoSuchModel, Damaged):
        raise
    except TrimsError as error:
        if asked.place != AUTO:
            raise
        try:
            model = _of(digest, DISK)
        except TrimsError:
            raise error from None
    return _open.setdefault(key, model)


def living() -> list[Model]:
    """The models that something in this process still holds."""
    pid = os.getpid()
    return [model for (owner, _), model in list(_open.items()) if owner == pid]


def _of(digest: str, place: str) -> Model:
    asked = wishes()
    return open_model(f"id:{digest}", place, asked.timeout, store=asked.store, socket=asked.socket)
