"""Memory of a GPU that its worker owns, by the numbers that the manager gave it: others open it by legacy CUDA IPC."""

from __future__ import annotations

from trims.devices.driver import Driver
from trims.errors import DeviceLost
from trims.transfer.gpu_range import Own


class Owned:
    """That of one process for one GPU, whose context it keeps open. It goes with the context."""

    def __init__(self, driver: Driver, ordinal: int) -> None:
        self._driver, self._ordinal = driver, ordinal
        self._there: dict[int, Own] = {}

    def allocate(self, number: int, nbytes: int) -> bytes:
        """The handle of new memory. Raises NoRoom, DeviceLost."""
        address = self._driver.allocate(self._ordinal, nbytes)
        try:
            handle = self._driver.ipc_handle(self._ordinal, address)
        except BaseException:
            self._driver.free_allocation(self._ordinal, address)
            raise
        self._there[number] = Own(address, nbytes)
        return handle

    def free(self, number: int) -> None:
        self._driver.free_allocation(self._ordinal, self._there.pop(number).address)

    def find(self, number: int) -> Own:
        """Raises DeviceLost when this process never had it: an earlier worker did."""
        found = self._there.get(number)
        if found is None:
            raise DeviceLost("memory of a GPU is gone", "the process that owned it has ended", "see `trims logs`")
        return found
