"""One load: a region of its place, filled from where the model is and sealed.

Runs in a thread. Whatever goes wrong, no region is left and one TrimsError says why; a damaged model is never sealed,
so it can never be handed out.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace

from trims.devices.base import Device, Region
from trims.disk.reader import Cancelled
from trims.disk.sidecar import read_sidecar
from trims.errors import DeviceLost, TrimsError
from trims.linux import atomic
from trims.manifest import table_bytes
from trims.residency.events import Key
from trims.transfer.base import Filler, Source


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a model in one place, as the store describes it: what to load, from where, and what it will take.

    span, table: bytes of the span and of its table.
    """

    key: Key
    ref: str
    nbytes: int
    container: str
    sidecar: str
    span: int
    table: int

    def on(self, device: Device) -> Form:
        """The same in another place."""
        if device.place == self.key.place:
            return self
        key = self.key._replace(place=device.place)
        return replace(self, key=key, nbytes=device.takes(self.span, self.table))


@dataclass(frozen=True, slots=True)
class Filled:
    """A sealed region, where its table lies in it, and from where on its bytes are in its first descriptor."""

    region: Region
    table: tuple[int, int]
    tail: int = 0


class LoadJob:
    """One load on its way. `done` is bytes in place of `nbytes`; `cancel` makes it stop soon.

    queued, began, read, sealed: when each step was done, 0 while it is not: given to the threads, taken by one, all
    bytes read and verified, sealed.
    """

    __slots__ = ("began", "cancelled", "done", "key", "nbytes", "number", "queued", "read", "ref", "sealed", "told")

    def __init__(self, number: int, key: Key, ref: str, nbytes: int) -> None:
        self.number, self.key, self.ref, self.nbytes = number, key, ref, nbytes
        self.cancelled = False
        self.done = 0
        self.told = 0.0  # when progress was last passed on
        self.queued = time.monotonic()
        self.began = self.read = self.sealed = 0.0

    def cancel(self) -> None:
        self.cancelled = True


def load(
    device: Device,
    filler: Filler,
    job: LoadJob,
    form: Callable[[Key, str], Form],
    region: Region | None,
    progress: Callable[[int], None],
) -> Filled:
    """Fill and seal a region with what `job` is about; `form` tells its files. Raises TrimsError and nothing else.

    region: one of another place that holds the same and stays there until this has ended.
    """
    job.began = time.monotonic()
    try:
        return _load(device, filler, job, form(job.key, job.ref), region, progress)
    except TrimsError:
        raise
    except OSError as error:
        raise atomic.translate(error, f"loading {job.ref}") from None
    except MemoryError:
        raise TrimsError(f"loading {job.ref} failed", "the manager itself has no memory left") from None


def _load(
    device: Device, filler: Filler, job: LoadJob, form: Form, other: Region | None, progress: Callable[[int], None]
) -> Filled:
    sidecar = read_sidecar(form.sidecar)
    source = Source(form.container, form.sidecar, sidecar, table_bytes(sidecar.manifest), other)
    if job.cancelled:
        raise Cancelled("the load was cancelled")

    def step(done: int) -> None:
        if done >= source.span:
            job.read = time.monotonic()
        progress(done)

    region = device.allocate(job.ref, device.takes(source.span, len(source.table)))
    try:
        tail = filler.fill(region, source, step, lambda: job.cancelled)
        job.sealed = time.monotonic()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they hold views of the region, and would keep it open
        region.close()
        raise
    return Filled(region, (source.span, len(source.table)), tail)


def lost(filled: Filled, job: LoadJob) -> DeviceLost:
    """The error of a load whose region went with the process that owned it before anybody heard of it; it is closed."""
    filled.region.close()
    return DeviceLost(f"loading {job.ref} failed", f"the process that owned the memory on {job.key.place} has ended")
