"""Weights on a GPU that is shared by legacy CUDA IPC: one allocation, opened once in a process, read-write for all.

CUDA lets a process open such memory once on each GPU, so all who use a region here share the one opening.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from trims.client.device_memory import Mapped
from trims.devices.driver import Driver
from trims.errors import DeviceLost, ManagerUnreachable

if TYPE_CHECKING:
    from trims.wire.messages import Attached

_HINT = "`trims status` says whether its process runs; containers need the manager's PID and IPC namespaces"


class _Opened:
    """What this process has open, and how many use it.

    Its lock is taken within `trims.client.device_memory`'s calls of the driver alone, where no thread begins another
    one, and never in a forked child, which the driver refuses before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._there: dict[tuple[Driver, int, bytes], list[int]] = {}  # address and count

    def take(self, driver: Driver, ordinal: int, handle: bytes) -> int:
        """The address of the memory behind a handle. Raises DeviceLost."""
        key = (driver, ordinal, handle)
        with self._lock:
            found = self._there.get(key)
            if found is None:
                found = self._there[key] = [driver.ipc_open(ordinal, handle), 0]
            found[1] += 1
            return found[0]

    def give_back(self, driver: Driver, ordinal: int, handle: bytes) -> None:
        """Undo one `take`. Raises DeviceLost when the GPU has failed."""
        key = (driver, ordinal, handle)
        with self._lock:
            found = self._there[key]
            found[1] -= 1
            if not found[1]:
                del self._there[key]
                driver.ipc_close(ordinal, found[0])


_opened = _Opened()


def handle(answer: Attached) -> bytes:
    """That of the only slab. Raises ManagerUnreachable when the answer makes no sense."""
    try:
        (_,), (text,) = answer.slabs, answer.ipc
        return bytes.fromhex(text)
    except ValueError:
        why = "it gave something else than a handle for an allocation"
        raise ManagerUnreachable("the manager cannot be understood", why, "see `trims status`") from None


class IpcMapped(Mapped):
    """A region by the handle of its only slab."""

    __slots__ = ("_handle",)

    def __init__(
        self, driver: Driver, ordinal: int, slabs: Sequence[int], handle: bytes, release: Callable[[], None]
    ) -> None:
        self._handle = handle
        super().__init__(driver, ordinal, slabs, (), release)

    def _map(self, slabs: Sequence[int], fds: Sequence[int]) -> None:
        where = (self.driver, self.ordinal, self._handle)
        try:
            self.address = _opened.take(*where)
        except DeviceLost as error:
            raise DeviceLost("a model cannot be opened by legacy CUDA IPC", str(error), _HINT) from None
        self._steps += [(_opened.give_back, *where), (self.driver.synchronize, self.ordinal)]
