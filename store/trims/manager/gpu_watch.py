"""Watching GPUs: what others take of their memory, and workers that have nothing to do or have died.

A budget is promised at the start, and others may use the GPU later. What they take of it is reserved in the machine's
books, so that idle models make room and no load is begun that the GPU has no memory for. What is ours and what is
measured are looked at one after the other; ours is counted before it is made and until it is given up, so nothing of
ours is ever taken for somebody else's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from trims.devices.driver import Usage
from trims.errors import TrimsError
from trims.linux import process
from trims.manager.executor import Executor
from trims.manager.gpus import Gpus
from trims.manager.server import Server
from trims.manager.workers import Mailbox, Pool
from trims.places import HOST
from trims.residency import events as ev
from trims.transfer import bounce
from trims.transfer.gpu_link import GpuLink
from trims.units import format_size

EVERY = 2.0
"""Seconds between two looks, each in a thread, since how long the management library takes is not known."""
IDLE = 30.0
"""Seconds without a load after which a worker ends, and gives its context's memory back."""
OTHERS = "other processes"


class GpuWatch:
    """Looks at the GPUs now and then. `usage` is what was measured last, by place."""

    def __init__(self, gpus: Gpus, executor: Executor, server: Server, mailbox: Mailbox) -> None:
        self._gpus, self._executor, self._server = gpus, executor, server
        self.pool = Pool(mailbox, "gpus", 1)
        self.usage: dict[str, Usage] = {}
        self.left_out = gpus.left_out
        self._reserved: dict[str, int] = {}
        self._trouble: dict[str, str] = {}  # by place, why it could not be measured the last time
        self._closed = False
        self._workers: set[int] = set()  # a pidfd of each
        for place, filler in gpus.fillers.items():
            filler.link.running = self._running(place, filler.link)
        if gpus.devices:
            self.look()

    def look(self) -> None:
        """Measure behind the loop's back; then what others took is reserved, and the next look comes."""
        if not self._closed:
            left = {place: self._left(place) for place in self._gpus.devices}
            self.pool.run(lambda: self._measure(left), self._seen)

    def close(self) -> None:
        """Watch nothing any more; what is being measured goes on in `pool`, which is the caller's to close."""
        self._closed = True
        for fd in list(self._workers):
            self._forget(fd)

    def describe(self) -> dict[str, dict[str, object]]:
        """The item of a status, by place: name, total, used, others (bytes), notes, simulated, worker (pid)."""
        found: dict[str, dict[str, object]] = {}
        for place, device in self._gpus.devices.items():
            usage = self.usage.get(place, Usage(device.gpu.nbytes, 0))
            found[place] = {
                "name": device.gpu.name,
                "total": usage.total,
                "used": usage.used,
                "others": max(0, usage.used - device.nbytes),
                "notes": [*self._gpus.notes[place], *([self._trouble[place]] if place in self._trouble else [])],
                "simulated": device.driver.simulated,
                "worker": self._gpus.fillers[place].link.pid,
            }
        return found

    def _left(self, place: str) -> int:
        """Bytes that clients of earlier lives still hold, which are reserved already."""
        return self._executor.machine.use(place).reserved - self._reserved.get(place, 0)

    def _measure(self, left: dict[str, int]) -> dict[str, tuple[Usage, int] | TrimsError]:
        """In a thread: what is used on each GPU, and what of it is ours at most. Ends workers that are idle."""
        found: dict[str, tuple[Usage, int] | TrimsError] = {}
        for place, device in self._gpus.devices.items():
            self._gpus.fillers[place].link.end_if_idle(IDLE)
            ours = device.nbytes
            try:
                usage = device.driver.usage(device.gpu.uuid)
            except TrimsError as error:
                found[place] = error
            else:
                found[place] = (usage, max(ours, device.nbytes) + left[place])
        return found

    def _seen(self, outcome: dict[str, tuple[Usage, int] | TrimsError] | BaseException) -> None:
        if isinstance(outcome, BaseException):
            self._executor.write(f"GPUs cannot be measured: {outcome!r}", "warning")
        else:
            for place, seen in outcome.items():
                if isinstance(seen, TrimsError):
                    self._failed(place, str(seen))
                else:
                    self._trouble.pop(place, None)
                    self.usage[place] = seen[0]
                    self._reserve(place, pressure(*seen, self._gpus.budgets[place]))
        if not self._closed:
            self._server.at(time.monotonic() + EVERY, self.look)

    def _failed(self, place: str, why: str) -> None:
        if place not in self._trouble:  # once, not every two seconds
            self._executor.write(f"{place} cannot be measured: {why}", "warning")
        self._trouble[place] = why

    def _reserve(self, place: str, nbytes: int) -> None:
        if nbytes != self._reserved.get(place, 0):
            self._reserved[place] = nbytes
            self._executor.feed(ev.Reserved(place, OTHERS, nbytes))
            self._executor.write(f"other processes have {format_size(nbytes)} of the budget of {place}", "debug")

    def _running(self, place: str, link: GpuLink) -> Callable[[bool], None]:
        """What is told, in a thread, when a worker starts and when it has ended."""

        def told(running: bool) -> None:
            if running:
                fd = _watched(link.pid)  # here, where nobody can have waited for it yet
                self._executor.post(lambda: self._begun(place, link, fd))
            else:
                self._executor.post(lambda: self._ended(place))

        return told

    def _begun(self, place: str, link: GpuLink, fd: int) -> None:
        """Count the host memory that a worker locks while it runs, and see at once when it dies."""

        def dead(_: int) -> None:
            self._forget(fd)
            self.pool.run(lambda: link.end_if_idle(IDLE), lambda _: None)

        if fd >= 0:
            self._workers.add(fd)
            self._server.watch(fd, dead)
        self._executor.feed(ev.Reserved(HOST, f"buffers of {place}", bounce.host_nbytes()))

    def _ended(self, place: str) -> None:
        self._executor.feed(ev.Reserved(HOST, f"buffers of {place}", 0))
        count = self._executor.look_for_lost(place)
        if count:
            self._executor.write(
                f"the worker that owned the memory of {place} has ended: {count} models are lost there; what clients "
                "have open of them is undefined from now on, and they had better end or open them again",
                "warning",
            )

    def _forget(self, fd: int) -> None:
        self._workers.discard(fd)
        self._server.unwatch(fd)
        os.close(fd)


def _watched(pid: int | None) -> int:
    """A pidfd of a worker; -1 where there are none, and the next look finds out."""
    assert pid is not None
    try:
        return process.watch(pid)
    except OSError:
        return -1


def pressure(usage: Usage, ours: int, budget: int) -> int:
    """How many bytes of the budget others have taken: what it is more than what they leave.

    ours: bytes of the used ones that may be ours.
    """
    others = max(0, usage.used - ours)
    return max(0, min(budget, budget - (usage.total - others)))
