"""The worker of one GPU: a process that has a context there, so that the manager has none.

`python -m trims.transfer.gpu_worker UUID FD FD`. It fills regions that the manager allocated, on its order by the first
socket, and ends when that closes; what cannot wait for the order in hand comes by the second. Its context's memory,
hundreds of MB as others report, comes back with its end. Should it die, or the GPU fault under it, the load in hand
fails and the manager serves on.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager, nullcontext

from trims.devices import drivers
from trims.devices.driver import Driver, Gpu
from trims.disk.reader import Cancelled
from trims.disk.sidecar import PIECE, read_sidecar
from trims.errors import DeviceLost, TrimsError
from trims.linux import atomic, fdpass
from trims.transfer import gpu_work
from trims.transfer.bounce import THREADS, Bounce
from trims.transfer.gpu_own import Owned
from trims.transfer.gpu_range import GpuRange, Range
from trims.transfer.gpu_words import (
    LONGEST,
    Allocate,
    Cancel,
    Done,
    Drop,
    Failed,
    Free,
    Ready,
    Step,
    Task,
    Told,
    Work,
    decode_asked,
    encode,
)
from trims.transfer.registry import Registry

TELLING = 0.1
"""Seconds between two reports of progress."""
ENDING = 10.0
"""Seconds after the manager has gone until a worker ends whatever it is in: a call of the driver may never return."""
Order = Task | Allocate | Free
Packet = tuple[Order, list[int]]


class Worker:
    """Does what comes, in order; what is to end the work in hand overtakes it."""

    def __init__(self, driver: Driver, gpu: Gpu, sock: socket.socket, side: socket.socket) -> None:
        self._driver, self._gpu, self._sock, self._side = driver, gpu, sock, side
        self._own = Owned(driver, gpu.ordinal)
        self._packets: queue.SimpleQueue[Packet | None] = queue.SimpleQueue()
        self._unwanted = threading.Event()
        self._told = 0.0

    def run(self) -> None:
        """Until the manager closes the socket. Raises DeviceLost, NoRoom when the GPU cannot be used at all."""
        ordinal = self._gpu.ordinal
        threading.Thread(target=self._listen, name="trims-listen", daemon=True).start()
        self._driver.open(ordinal)
        bounce = Bounce(self._driver, ordinal, THREADS, PIECE)
        registry = Registry(self._driver, ordinal, self._gpu.reads_registered)
        threading.Thread(target=self._forget, args=(registry,), name="trims-forget", daemon=True).start()
        self._tell(Ready())
        while (packet := self._packets.get()) is not None:
            message, fds = packet
            try:
                answer = self._answer(message, fds, bounce, registry)
            finally:
                fdpass.close_all(fds)  # before it is told: from then on the memory may be given up, and is to be free
            self._tell(answer)
        registry.close()
        bounce.close()
        self._driver.close(ordinal)

    def _listen(self) -> None:
        """In a thread of its own, so that a cancel is heard while work goes on."""
        while True:
            try:
                data, fds = fdpass.receive(self._sock, LONGEST, fdpass.MOST_FDS)
            except OSError:
                data, fds = b"", []
            if not data:
                self._unwanted.set()
                self._packets.put(None)
                time.sleep(ENDING)
                os._exit(1)
            message = decode_asked(data)
            assert not isinstance(message, Drop)
            if isinstance(message, Cancel):
                self._unwanted.set()
                continue
            if isinstance(message, Task):
                self._unwanted.clear()  # an order comes after the answer to the one before
            self._packets.put((message, fds))

    def _forget(self, registry: Registry) -> None:
        """In a thread of its own: drop host regions that are about to be closed, which no load reads from any more."""
        while data := _received(self._side):
            message = decode_asked(data)
            assert isinstance(message, Drop)
            try:
                registry.drop(message.inode)
                answer: Told = Done()
            except TrimsError as error:
                answer = Failed.of(error)
            try:
                self._side.send(encode(answer))
            except OSError:
                return

    def _answer(self, message: Order, fds: list[int], bounce: Bounce, registry: Registry) -> Done | Failed:
        """Raises DeviceLost when the context has failed: it would fail for ever."""
        try:
            return self._do(message, fds, bounce, registry)
        except DeviceLost as error:
            if not self._works():
                raise
            return Failed.of(error)
        except TrimsError as error:
            return Failed.of(error)
        except OSError as error:
            return Failed.of(atomic.translate(error, "loading to a GPU"))
        except MemoryError:
            return Failed.of(TrimsError("loading to a GPU failed", "its worker has no memory left"))

    def _do(self, message: Order, fds: list[int], bounce: Bounce, registry: Registry) -> Done:
        if isinstance(message, Task):
            return self._work(message.work, fds, bounce, registry)
        if isinstance(message, Allocate):
            return Done(handle=self._own.allocate(message.number, message.nbytes).hex())
        self._own.free(message.number)
        return Done()

    def _works(self) -> bool:
        try:
            self._driver.synchronize(self._gpu.ordinal)
        except TrimsError:
            return False
        return True

    def _work(self, work: Work, fds: list[int], bounce: Bounce, registry: Registry) -> Done:
        count = 0 if work.own else len(work.slabs)
        ours, others = fds[:count], fds[count:]
        sidecar = read_sidecar(work.sidecar)
        with self._region(work, ours) as there:
            if work.peer and self._reaches(work.peer):
                with GpuRange(self._driver, self._gpu.ordinal, others, work.peer_slabs, write=False) as source:
                    gpu_work.from_peer(bounce, there, source, sidecar.span_nbytes, self._step)
                gpu_work.check(bounce, there, work.container, sidecar, self._step)
                return Done(way="gpu")
            if work.host is not None:
                return Done(way=self._from_host(work.host, others[0], there, sidecar.span_nbytes, bounce, registry))
            gpu_work.from_disk(bounce, there, work.container, sidecar, self._step)
            return Done(way="disk")

    def _region(self, work: Work, fds: list[int]) -> AbstractContextManager[Range]:
        """What is to be filled."""
        if work.own:
            return nullcontext(self._own.find(work.own))
        return GpuRange(self._driver, self._gpu.ordinal, fds, work.slabs, write=True)

    def _from_host(
        self, host: tuple[int, int], fd: int, there: Range, span: int, bounce: Bounce, registry: Registry
    ) -> str:
        nbytes, inode = host
        region = registry.mapped(fd, inode, nbytes)
        if region.registered:
            gpu_work.from_registered(bounce, there, region.address, span, self._step)
            return "registered host memory"
        gpu_work.from_host(bounce, there, region.address, span, self._step)
        registry.register(inode)
        return "host"

    def _reaches(self, uuid: str) -> bool:
        other = next((gpu for gpu in self._driver.gpus() if gpu.uuid == uuid), None)
        return other is not None and self._driver.reaches(self._gpu.ordinal, other.ordinal)

    def _step(self, done: int) -> None:
        """After each part. In any thread, one at a time."""
        if self._unwanted.is_set():
            raise Cancelled("the load was cancelled")
        now = time.monotonic()
        if now >= self._told + TELLING:
            self._told = now
            self._tell(Step(done))

    def _tell(self, message: Told) -> None:
        try:
            self._sock.send(encode(message))
        except OSError:
            self._unwanted.set()  # nobody is there any more


def _received(sock: socket.socket) -> bytes:
    """The next packet; b"" at the end."""
    try:
        return sock.recv(LONGEST)
    except OSError:
        return b""


def main(arguments: list[str]) -> int:
    """0 when the manager ended it; else the reason was its last word."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the manager's terminal is the manager's to heed
    uuid, *fds = arguments
    sock, side = (socket.socket(fileno=int(fd)) for fd in fds)
    try:
        driver = drivers.find()
        gpu = next((gpu for gpu in driver.gpus() if gpu.uuid == uuid), None)
        if gpu is None:
            raise DeviceLost(f"there is no GPU {uuid}", "the worker's driver does not show it", "see `nvidia-smi`")
        Worker(driver, gpu, sock, side).run()
    except TrimsError as error:
        try:
            sock.send(encode(Failed.of(error, last=True)))
        except OSError:
            pass
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
