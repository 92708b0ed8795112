"""The manager's end of a worker that owns the memory of its GPU's regions, for legacy CUDA IPC.

Such memory belongs to a context, so the worker stays as long as there is any of it, and all of it goes with the worker.
"""

from __future__ import annotations

from trims.disk.reader import Cancelled
from trims.errors import TrimsError
from trims.transfer.gpu_link import GpuLink
from trims.transfer.gpu_words import Allocate, Asked, Done, Free


class GpuKeeper(GpuLink):
    """A link whose worker allocates, too (`trims.devices.ipc.Owner`)."""

    def __init__(self, uuid: str) -> None:
        super().__init__(uuid)
        self._owned: set[int] = set()
        self._last = 0

    def allocate(self, nbytes: int) -> tuple[int, bytes]:
        """(number, handle) of new memory. Raises NoRoom, DeviceLost, Cancelled."""
        with self._lock:
            if self._closed:
                raise Cancelled("the load was cancelled")
            self._start(lambda: False)
            self._last += 1
            handle = self._ask(Allocate(self._last, nbytes)).handle
            self._owned.add(self._last)
            return self._last, bytes.fromhex(handle)

    def free(self, number: int) -> None:
        """Give memory up; waits for the order in hand. What is gone is gone."""
        with self._lock:
            if number in self._owned:
                self._owned.discard(number)
                try:
                    self._ask(Free(number))
                except TrimsError:
                    pass  # the GPU has failed, or the worker has died: either way it is gone

    def owns(self, number: int) -> bool:
        return number in self._owned

    def _ask(self, message: Asked) -> Done:
        return self._exchange(message, (), lambda _: None, lambda: False)

    def _is_idle(self, seconds: float) -> bool:
        return not self._owned and super()._is_idle(seconds)

    def _drop_failed(self) -> None:
        """It keeps a host region mapped that nobody fills from any more: a lesser loss than that of all its memory."""

    def _drop_hangs(self) -> None:
        """As above."""

    def _gives_up(self) -> bool:
        return self._closed or not self._owned  # a hung disk is no reason to lose everything

    def _end(self) -> None:
        self._owned.clear()
        super()._end()
