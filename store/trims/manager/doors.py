"""Who may come in, and as what: decided once a connection, by what the kernel says of the process that connected.

A manager of user scope serves its own user and root. One of system scope serves everybody who has a number of their
own: operators, who may do everything, and *tenants*, who may do what `gate` and the permissions of refs let them.
"""

from __future__ import annotations

import grp
import os
import socket

from trims.errors import NotPermitted, UsageError
from trims.linux import process
from trims.permission import Asker


class Doors:
    """system: of system scope. operators: the number of their group, or None. uid: whose manager it is."""

    def __init__(self, system: bool = False, operators: int | None = None, uid: int | None = None) -> None:
        self.system, self._operators = system, operators
        self._own = os.geteuid() if uid is None else uid
        self._unmapped = process.unmapped_ids() if system else (-1, -1)

    @property
    def scope(self) -> str:
        return "system" if self.system else "user"

    def admit(self, sock: socket.socket) -> Asker | None:
        """The tenant who connected; None for one who may do everything. Raises NotPermitted."""
        _, uid, gid = process.peer(sock)
        if uid == 0 or (uid == self._own and uid != self._unmapped[0]):
            return None
        if not self.system:
            raise NotPermitted("the manager serves another user", f"it does not serve uid {uid}")
        if uid == self._unmapped[0]:
            why = f"uid {uid} stands for every user that the manager has no number for"
            raise NotPermitted("the manager cannot tell who you are", why, "use a user that it knows")
        groups = frozenset(process.peer_groups(sock)) - {self._unmapped[1]}
        return None if self._operators in groups else Asker(uid, gid, groups)


def group_number(name: str, key: str = "manager.operators") -> int | None:
    """The number of the group that the configuration's `key` names; None when it names none ("")."""
    if not name:
        return None
    try:
        return int(name) if name.isdecimal() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise UsageError(f"no group {name!r}", f"{key} names it", f"see `trims config get {key}`") from None
