"""Opening the model that stands for a file: by the manager, or without one, and once a process while it is in use."""

from __future__ import annotations

import os
from weakref import WeakValueDictionary

from trims.client import Model
from trims.client import open as open_model
from trims.disk.catalog import Catalog
from trims.disk.known import Known
from trims.errors import Damaged, NoSuchModel, TrimsError
from trims.paths import StorePaths
from trims.places import AUTO, DISK
from trims.redirect.environment import wishes

_open: WeakValueDictionary[tuple[int, str], Model] = WeakValueDictionary()


def opened(known: Known) -> Model:
    """The model of a file; one that this process uses already is used again. Raises TrimsError.

    What the manager has no room or no time for is mapped from the store's files, unless a place was asked for.
    """
    key = (os.getpid(), known.model)
    model = _open.get(key)
    if model is not None and not model.closed:
        return model
    asked = wishes()
    try:
        model = _of(known, asked.place)
    except (NoSuchModel, Damaged):
        raise
    except TrimsError as error:
        if asked.place != AUTO:
            raise
        try:
            model = _of(known, DISK)
        except TrimsError:
            raise error from None
    _open[key] = model
    return model


def living() -> list[Model]:
    """The models that something in this process still holds."""
    pid = os.getpid()
    return [model for (owner, _), model in list(_open.items()) if owner == pid]


def _of(known: Known, place: str) -> Model:
    """By its name where that still means this model: to find a digest, all names of the store are read."""
    asked = wishes()
    entry = Catalog(StorePaths(asked.store)).find(known.ref)
    name = known.ref if entry is not None and entry.digest == known.model else f"id:{known.model}"
    model = open_model(name, place, asked.timeout, store=asked.store, socket=asked.socket)
    if model.digest != known.model:  # the name was moved this moment
        model.close()
        model = open_model(f"id:{known.model}", place, asked.timeout, store=asked.store, socket=asked.socket)
    return model
