"""What one user may have of a shared manager, so that nobody takes all of it. Operators are not counted.

Bytes are of models, each once however often it is held; 0 is no bound of its own. Numbers of leases and of requests
that wait are always bounded: they cost the manager memory, whatever they are about.
"""

from __future__ import annotations

from typing import NamedTuple

from trims.errors import NoRoom, TrimsError
from trims.manager.connection import Connection
from trims.manager.gate import owner_name
from trims.permission import Asker
from trims.residency.events import Key
from trims.residency.machine import Machine
from trims.units import format_size

LEASES = 1 << 16
"""Most leases of one user."""
WAITING = 256
"""Most requests of one connection that wait for the manager at a time."""
ALL_WAITING = 4096
"""Most requests of one user that wait: what was asked to be warm goes on waiting when its connection ends."""


class Limits(NamedTuple):
    """Bytes of what one user's processes hold, and of what a user's pins keep."""

    leased: int = 0
    pinned: int = 0


UNLIMITED = Limits()


class Quotas:
    """Counts what tenants hold. In the loop only."""

    def __init__(self, limits: Limits, machine: Machine) -> None:
        self._limits, self._machine = limits, machine
        self._held: dict[int, dict[Key, tuple[int, int]]] = {}  # uid: (leases, bytes) of each
        self._leases: dict[int, int] = {}

    def granted(self, uid: int, key: Key, nbytes: int) -> None:
        """A lease was granted to a tenant."""
        held = self._held.setdefault(uid, {})
        held[key] = (held.get(key, (0, 0))[0] + 1, nbytes)
        self._leases[uid] = self._leases.get(uid, 0) + 1

    def released(self, uid: int, key: Key) -> None:
        """A lease of a tenant has ended."""
        held = self._held[uid]
        count, nbytes = held[key]
        if count > 1:
            held[key] = (count - 1, nbytes)
        else:
            del held[key]
        self._leases[uid] -= 1
        if not held:
            del self._held[uid], self._leases[uid]

    def check_waiting(self, connection: Connection) -> None:
        """Raise when too many requests of this connection, or of its user, wait already."""
        of_connection, of_user = self._machine.waiting(connection.number, connection.uid)
        if of_connection >= WAITING or of_user >= ALL_WAITING:
            why = f"{of_connection} of this connection and {of_user} of yours wait already"
            raise TrimsError("the request is not taken", why, "wait for some of them")

    def check_lease(self, tenant: Asker, key: Key, ref: str, nbytes: int) -> None:
        """Raise NoRoom when one lease more is beyond this user's share."""
        if self._leases.get(tenant.uid, 0) >= LEASES:
            raise NoRoom(f"{ref} is not attached", f"you hold {LEASES} leases, the most there may be", "release some")
        held = self._held.get(tenant.uid, {})
        if self._limits.leased and key not in held:
            has = sum(bytes for _, bytes in held.values())
            self._check(f"{ref} is not attached", "hold", has, nbytes, self._limits.leased, key.place)

    def check_pin(self, tenant: Asker, key: Key, ref: str, nbytes: int) -> None:
        """Raise NoRoom when one pin more is beyond this user's share."""
        if not self._limits.pinned:
            return
        pinned = {pin.key for pin in self._machine.pins() if pin.owner == owner_name(tenant)} - {key}
        has = sum(self._machine.nbytes(other) for other in pinned)
        self._check(f"{ref} is not pinned", "pin", has, nbytes, self._limits.pinned, key.place)

    def _check(self, what: str, verb: str, has: int, nbytes: int, most: int, place: str) -> None:
        if has + nbytes > most:
            why = f"it takes {format_size(nbytes)}; you {verb} {format_size(has)}, and may {verb} {format_size(most)}"
            raise NoRoom(what, why, "let go of others first", place=place, need=nbytes, budget=most, free=most - has)
