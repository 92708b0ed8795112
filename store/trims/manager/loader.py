"""One load: from a container into a region of its place, verified on the way, its table behind it, sealed.

Runs in a thread. Whatever goes wrong, no region is left and one TrimsError says why; a damaged model is never sealed,
so it can never be handed out.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from trims.devices.base import Device, Region
from trims.disk.reader import Cancelled, fill
from trims.disk.sidecar import read_sidecar
from trims.errors import TrimsError
from trims.linux import atomic
from trims.manifest import table_bytes
from trims.residency.events import Key

_SMALL = 8 << 20
"""Bytes below which one reading thread is as fast as two."""


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a model in one place, as the store describes it: what to load, from where, and what it will take."""

    key: Key
    ref: str
    nbytes: int
    container: str
    sidecar: str


@dataclass(frozen=True, slots=True)
class Filled:
    """A sealed region, and where its table lies in it."""

    region: Region
    table: tuple[int, int]


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


def load(device: Device, job: LoadJob, form: Callable[[Key, str], Form], progress: Callable[[int], None]) -> Filled:
    """Fill and seal a region with what `job` is about; `form` tells its files. Raises TrimsError and nothing else."""
    job.began = time.monotonic()
    try:
        return _load(device, job, form(job.key, job.ref), progress)
    except TrimsError:
        raise
    except OSError as error:
        raise atomic.translate(error, f"loading {job.ref}") from None
    except MemoryError:
        raise TrimsError(f"loading {job.ref} failed", "the manager itself has no memory left") from None


def _load(device: Device, job: LoadJob, form: Form, progress: Callable[[int], None]) -> Filled:
    sidecar = read_sidecar(form.sidecar)
    table, span = table_bytes(sidecar.manifest), sidecar.span_nbytes
    if job.cancelled:
        raise Cancelled("the load was cancelled")
    region = device.allocate(job.ref, span + len(table))
    try:
        fill(
            form.container,
            sidecar,
            region.buffer,
            threads=1 if span < _SMALL else 2,
            prepare=region.prepare,
            progress=progress,
            cancelled=lambda: job.cancelled,
        )
        job.read = time.monotonic()
        region.prepare(span, len(table))
        region.buffer[span : span + len(table)] = table
        region.seal()
        job.sealed = time.monotonic()
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # they hold views of the region, and would keep it open
        region.close()
        raise
    return Filled(region, (span, len(table)))
