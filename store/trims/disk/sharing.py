"""Changing who may read a ref of a shared store, and taking one away with what it alone named."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable

from trims import permission
from trims.disk import gc
from trims.disk.catalog import Catalog, Entry
from trims.disk.store import Store
from trims.errors import LockTimeout, UsageError
from trims.permission import PRIVATE, Access, Asker


def share(
    store: Store,
    ref: str,
    asker: Asker | None,
    owner: str = "",
    group: str = "",
    mode: int | None = None,
    lock_timeout: float = 60.0,
) -> Entry:
    """Change the access of a canonical ref; what is "" or None stays. asker: None for one who may do everything.

    Raises UsageError for a store of one user and for names that nobody has, NotPermitted, NoSuchModel, LockTimeout.
    """
    if not store.system:
        raise UsageError(f"{ref} is not shared", "the store is of one user's scope", "make one: `trims init --system`")
    uid, gid = user_number(owner), group_number(group)
    catalog = Catalog(store.paths, lock_timeout)
    with catalog.writing(ref):
        entry = catalog.get(ref)
        before = entry.access or Access(os.geteuid(), os.getegid(), PRIVATE)
        after = permission.changed(ref, before, asker, uid, gid, mode)
        if after != entry.access:
            entry = entry._replace(**after._asdict())
            catalog.put(entry)
    return entry


def collect_removed(store: Store, digest: str, lock_timeout: float) -> int:
    """Remove the files of a model that no ref names any more; bytes freed, 0 while an import runs."""
    found = gc.plan(store)
    ours = gc.GcPlan(tuple(item for item in found.items if item.name.partition("/")[0] == digest))
    try:
        return gc.collect(store, ours, lock_timeout).nbytes if ours.items else 0
    except LockTimeout:
        return 0


def user_number(name: str) -> int | None:
    """The number of a user, None for "". Raises UsageError."""
    return _number("user", name, lambda: pwd.getpwnam(name).pw_uid)


def group_number(name: str) -> int | None:
    """The number of a group, None for "". Raises UsageError."""
    return _number("group", name, lambda: grp.getgrnam(name).gr_gid)


def _number(kind: str, name: str, find: Callable[[], int]) -> int | None:
    if not name:
        return None
    try:
        number = int(name) if name.isdecimal() and name.isascii() else find()
    except (KeyError, ValueError):  # ValueError: a null byte
        raise UsageError(f"no {kind} {name[:100]!r}") from None
    if number >= 0xFFFFFFFF:
        raise UsageError(f"no {kind} {name[:100]!r}", "the number is too large")
    return number
