"""One form of a model on a GPU: `DeviceRegion`, and how a manager's answer becomes one."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trims.client import device_ipc, gpus
from trims.client.device_array import DeviceArray
from trims.client.device_memory import Mapped
from trims.client.mapping import Contents, Hold, Region, Watch, contents
from trims.errors import Damaged, ManagerUnreachable
from trims.linux import fdpass
from trims.places import gpu_of

if TYPE_CHECKING:
    from trims.wire.messages import Attached


class DeviceRegion:
    """What `trims.client.mapping.Region` is to host memory: one form of a model, mapped on a GPU.

    Its graph, side files and table are in host memory as well. mapped: its memory. place: `gpu:<UUID>`.
    """

    __slots__ = ("_span", "_tail", "_tail_at", "_watch", "contents", "mapped", "place")

    on_gpu: Literal[True] = True

    def __init__(self, place: str, mapped: Mapped, tail: Region, tail_at: int, span: int, made: Contents) -> None:
        """tail: host memory with the region's bytes from `tail_at` on. span: bytes of the region before its table."""
        self.place, self.mapped, self.contents = place, mapped, made
        self._tail, self._tail_at, self._span = tail, tail_at, span
        self._watch = Watch(weakref.ref(mapped), mapped.nbytes, own=False)

    def watch(self) -> Watch:
        """What says whether anything still uses the region, and does not itself keep it."""
        return self._watch

    def view(self, name: str) -> DeviceArray:
        """One tensor, without a copy. KeyError when there is none of that name; DeviceLost in a forked child."""
        shape, dtype, offset = self.contents.views[name]
        self.mapped.check()
        return DeviceArray(self.mapped, self.mapped.address + offset, shape, dtype)

    def views(self) -> dict[str, DeviceArray]:
        """Every tensor by name, in region order."""
        self.mapped.check()
        mapped, address = self.mapped, self.mapped.address
        return {
            name: DeviceArray(mapped, address + offset, shape, dtype)
            for name, (shape, dtype, offset) in self.contents.views.items()
        }

    def blob(self, at: tuple[int, int]) -> bytes:
        """A copy of the bytes at (offset, nbytes), in host memory."""
        offset, nbytes = at
        if offset >= self._tail_at:
            return self._tail.blob((offset - self._tail_at, nbytes))
        return self._read(offset, nbytes).tobytes()

    def copy(self) -> np.ndarray[Any, Any]:
        """The bytes of all tensors, and what comes before the table, in new host memory. Raises DeviceLost."""
        return self._read(0, self._span)

    def _read(self, offset: int, nbytes: int) -> np.ndarray[Any, Any]:
        made = np.empty(nbytes, np.uint8)
        self.mapped.read(self.mapped.address + offset, made)
        return made


def attached(answer: Attached, fds: list[int], release: Callable[[], None], place: str) -> DeviceRegion:
    """Map what a manager answered to an attach on the GPU `place`. Takes over descriptors and lease, in any case.

    Raises DeviceLost when it cannot be mapped, ManagerUnreachable when the answer makes no sense.
    """
    tail_fd, *slab_fds = fds
    hold = Hold(tail_fd)  # closes it
    try:
        _check(answer, place)
        offset, nbytes = answer.table
        at = offset - answer.tail
        tail = Region(hold, 0, at + nbytes)
        made = contents(answer.digest, answer.variant, offset, lambda: Contents.of_table(tail.blob((at, nbytes))))
        driver, gpu = gpus.seen(place)
        if answer.ipc:
            handle = device_ipc.handle(answer)
            mapped: Mapped = device_ipc.IpcMapped(driver, gpu.ordinal, answer.slabs, handle, release)
        else:
            mapped = Mapped(driver, gpu.ordinal, answer.slabs, slab_fds, release)
        mapped.tail = tail
    except BaseException:
        release()
        raise
    finally:
        fdpass.close_all(slab_fds)
    return DeviceRegion(place, mapped, tail, answer.tail, offset, made)


def _check(answer: Attached, place: str) -> None:
    offset, nbytes = answer.table
    if answer.place != place or not answer.slabs:
        raise ManagerUnreachable(
            "the manager cannot be understood",
            f"asked for {place} it answered with {answer.place}",
            "see `trims status`",
        )
    if min(answer.slabs) <= 0 or not 0 <= answer.tail <= offset <= sum(answer.slabs) or nbytes <= 0:
        raise Damaged(f"a region on GPU {gpu_of(place)} is damaged", "its parts do not fit", "restart the manager")
