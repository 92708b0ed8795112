"""A store is a directory with a `store.json` in it. Making one, and opening one.

The marker is written last: a directory without it is no store, whatever else a crash left in it, and `create_store`
goes on from there.
"""

from __future__ import annotations

import json
import os
import time
from typing import NamedTuple

from trims.errors import Damaged, NoStore, NotPermitted, StoreTooNew, UsageError
from trims.linux import atomic, flock
from trims.paths import StorePaths

MAGIC = "trims store"
FORMAT = 1
CODECS = ("none", "zstd")
CLOSED = 0o700
"""The mode of a shared store's root: a file in it that everybody could read would be read past its ref's permission."""
_OURS = {"store.json", "lock", "tmp", "catalog", "containers", "variants", "locks", "names", "snapshot", "sources"}
_HARMLESS = {"lost+found"}  # the root of a file system is a fine place for a store


class Store(NamedTuple):
    """An open store. id: random, for life; codec: of new containers.

    system: users share it by way of a manager of system scope, and its refs say who may read them.
    """

    root: str
    id: str
    codec: str
    system: bool = False

    @property
    def paths(self) -> StorePaths:
        return StorePaths(self.root)


def open_store(root: str) -> Store:
    """The store at `root`. Raises NoStore, StoreTooNew, Damaged."""
    paths = StorePaths(os.path.abspath(root))
    try:
        with open(paths.marker, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise NoStore(f"no store at {root}", "", "make one with `trims init`, or name another with --store") from None
    except PermissionError:
        why, hint = "this user may not read it", "use the manager of its owner, or name another with --store"
        raise NotPermitted(f"the store {root} cannot be opened", why, hint) from None
    except OSError as error:
        raise atomic.translate(error, f"opening the store {root}") from None
    return _parse(paths, data)


def _parse(paths: StorePaths, data: bytes) -> Store:
    try:
        fields = json.loads(data)
        magic, number = fields["magic"], fields["format"]
    except (ValueError, KeyError, TypeError):
        raise Damaged(f"{paths.marker} is damaged", "it is no store marker") from None
    if magic != MAGIC:
        raise NoStore(f"no store at {paths.root}", "its store.json belongs to something else", "choose another --store")
    if not isinstance(number, int) or number > FORMAT:
        raise StoreTooNew(
            f"the store {paths.root} has format {number}", f"this trims reads up to {FORMAT}", "upgrade trims"
        )
    identity, codec = fields.get("id"), fields.get("codec")
    if not isinstance(identity, str) or codec not in CODECS:
        raise Damaged(f"{paths.marker} is damaged", "its id or codec is missing")
    return Store(paths.root, identity, codec, fields.get("scope") == "system")


def create_store(
    root: str, codec: str = "none", if_missing: bool = False, group: int | None = None, system: bool = False
) -> Store:
    """Make `root` a store. if_missing: an existing store is opened and left as it is.

    group: the number of a group whose members may all change it; one trust domain, whatever their umasks are.
    system: a store for a manager of system scope: its owner alone can enter it, and the manager serves the others.

    Raises UsageError when the directory has other things in it or is a store already, NotPermitted, NoSpace.
    """
    if codec not in CODECS:
        raise UsageError(f"no codec {codec!r}", "", f"codecs are {', '.join(CODECS)}")
    paths = StorePaths(os.path.abspath(root))
    try:
        atomic.make_directory(paths.root, inherit=False)
        _refuse_foreign(paths.root)
        if group is not None and not os.path.lexists(paths.marker):
            os.chown(paths.root, -1, group)
            os.chmod(paths.root, atomic.SHARED)
        if system and not os.path.lexists(paths.marker):
            os.chmod(paths.root, CLOSED)
        with flock.held(paths.lock, exclusive=True, timeout=10):
            if os.path.lexists(paths.marker):
                return _existing(paths, if_missing, system)
            return _create(paths, codec, system)
    except OSError as error:
        raise atomic.translate(error, f"making the store {paths.root}") from None


def _refuse_foreign(root: str) -> None:
    foreign = sorted(set(os.listdir(root)) - _OURS - _HARMLESS)
    if foreign:
        raise UsageError(
            f"{root} cannot become a store", f"it has other things in it, {foreign[0]!r} first", "name a new directory"
        )


def _existing(paths: StorePaths, if_missing: bool, system: bool) -> Store:
    store = open_store(paths.root)
    if not if_missing:
        raise UsageError(f"{paths.root} is a store already", "", "use it as it is, or say --if-missing")
    if system and not store.system:
        raise UsageError(f"{paths.root} is a store already", "it is of one user's scope", "name a new directory")
    return store


def _create(paths: StorePaths, codec: str, system: bool) -> Store:
    from trims.manifest import canonical_json  # its classes cost 2 ms: for writers only

    if atomic.is_shared(paths.root):
        os.chmod(paths.lock, 0o664)
    for directory in (paths.tmp, paths.catalog, paths.containers, paths.variants, f"{paths.root}/locks"):
        atomic.make_directory(directory)
    store = Store(paths.root, os.urandom(16).hex(), codec, system)
    marker = {"magic": MAGIC, "format": FORMAT, "id": store.id, "codec": codec, "created": time.time()}
    if system:
        marker["scope"] = "system"
    atomic.replace(paths.marker, canonical_json(marker) + b"\n", paths.tmp)
    return store
