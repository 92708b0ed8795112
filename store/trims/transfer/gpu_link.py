"""The manager's end of a GPU's worker: started when there is something to do, one order at a time, ended when idle.

Calls block, so they are made in threads. A worker that dies costs the order in hand: DeviceLost says how it died, and
the next order starts another one.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from trims.disk.reader import Cancelled
from trims.errors import DeviceLost, TrimsError
from trims.linux import fdpass
from trims.transfer.gpu_words import (
    LONGEST,
    Asked,
    Cancel,
    Done,
    Drop,
    Failed,
    Ready,
    Step,
    Task,
    Work,
    decode_told,
    encode,
)

_LOOK = 0.05
"""Seconds between two looks whether an order is still wanted."""
_ENDING = 5.0
"""Seconds for a worker whose socket is closed to end by itself (it unpins its buffers), and for an order that is not
wanted any more to be given up. A driver may hang, and then the worker with it: it is killed."""
_DROPPING = 60.0
"""Seconds for a host region to be dropped: it takes a while to unlock hundreds of gigabytes."""


class GpuLink:
    """The worker of the GPU `uuid`, if it runs. running: told, in a thread, that it has started (True) or ended."""

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid
        self.running: Callable[[bool], None] = lambda _: None
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._side_lock = threading.Lock()
        self._side: socket.socket | None = None  # for what must not wait for the order in hand
        self._used = 0.0
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the worker, while it runs."""
        child = self._child
        return child.pid if child is not None else None

    def work(
        self, work: Work, fds: Sequence[int], progress: Callable[[int], None], cancelled: Callable[[], bool]
    ) -> Done:
        """Have it done. Raises what the worker reported, DeviceLost when it died, Cancelled."""
        with self._lock:
            if self._closed or cancelled():
                raise Cancelled("the load was cancelled")
            self._start(cancelled)
            return self._exchange(Task(work), fds, progress, cancelled)

    def drop(self, inode: int) -> None:
        """Have nothing kept of a host region, whatever the worker is doing. One that does not run keeps nothing."""
        with self._side_lock:
            if self._side is None:
                return
            try:
                self._side.settimeout(_DROPPING)
                self._side.send(encode(Drop(inode)))
                data = self._side.recv(LONGEST)
            except TimeoutError:
                self._side.close()  # what it may answer yet is nobody's
                self._side = None
                self._drop_hangs()
                return
            except OSError:
                return  # it has died, and what it kept is gone
        if data and isinstance(decode_told(data), Failed):
            with self._lock:
                self._drop_failed()

    def end_if_idle(self, seconds: float) -> None:
        """End a worker that has had nothing to do for so long, and note the death of one that had not. Never waits."""
        if self._child is not None and self._lock.acquire(blocking=False):
            try:
                child = self._child
                if child is not None and (child.poll() is not None or self._is_idle(seconds)):
                    self._end()
            finally:
                self._lock.release()

    def close(self) -> None:
        """End it for good. An order in hand is cancelled, and waited for."""
        self._closed = True
        with self._lock:
            self._end()

    def _is_idle(self, seconds: float) -> bool:
        return time.monotonic() >= self._used + seconds

    def _drop_failed(self) -> None:
        self._end()  # with it goes what it kept

    def _drop_hangs(self) -> None:
        """The same, whatever order it has in hand."""
        self._kill()

    def _gives_up(self) -> bool:
        """Whether a worker that does not end an unwanted order is killed."""
        return True

    def _start(self, cancelled: Callable[[], bool]) -> None:
        """See that a worker runs that can use the GPU. Raises what it says if it cannot."""
        if self._child is not None and self._child.poll() is not None:
            self._end()  # it died in between
        if self._child is not None:
            return
        self._spawn()
        self.running(True)
        try:
            self._hear(lambda _: None, cancelled)
        except TrimsError:
            self._end()
            raise

    def _spawn(self) -> None:
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        fds = [theirs.fileno() for _, theirs in pairs]
        words = [sys.executable, "-m", "trims.transfer.gpu_worker", self.uuid, *map(str, fds)]
        try:
            self._child = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=fds, cwd="/")
        except OSError as error:
            for ours, _ in pairs:
                ours.close()
            why = os.strerror(error.errno or 0)
            raise DeviceLost(f"the worker of {self.uuid} cannot be started", why) from None
        finally:
            for _, theirs in pairs:
                theirs.close()
        self._sock, self._side = pairs[0][0], pairs[1][0]

    def _end(self) -> None:
        child, sock, self._child, self._sock = self._child, self._sock, None, None
        if sock is not None:
            sock.close()
        if child is not None:
            if not _has_ended(child):
                child.kill()
                _has_ended(child)  # if not even now, its driver does not let go of it: nobody can do more
            with self._side_lock:  # whoever waits for an answer there has heard of the end by now
                if self._side is not None:
                    self._side.close()
                    self._side = None
            self.running(False)

    def _exchange(
        self, message: Asked, fds: Sequence[int], progress: Callable[[int], None], cancelled: Callable[[], bool]
    ) -> Done:
        sock = self._sock
        assert sock is not None
        try:
            try:
                fdpass.send(sock, encode(message), list(fds))
            except OSError:
                raise self._broken(sock) from None
            told = self._hear(progress, cancelled)
        finally:
            self._used = time.monotonic()
        assert isinstance(told, Done)
        return told

    def _hear(self, progress: Callable[[int], None], cancelled: Callable[[], bool]) -> Done | Ready:
        """The worker's next word that is no progress. Raises what it reports, DeviceLost when it died."""
        sock = self._sock
        assert sock is not None
        unwanted = 0.0
        while True:
            try:
                if (self._closed or cancelled()) and not unwanted:
                    unwanted = time.monotonic()
                    sock.send(encode(Cancel()))
                if unwanted and time.monotonic() > unwanted + _ENDING and self._gives_up():
                    self._kill()
                    self._end()
                    raise Cancelled("the load was cancelled")
                if not select.select([sock], [], [], _LOOK)[0]:
                    continue
                data = sock.recv(LONGEST)
            except OSError:
                raise self._broken(sock) from None
            if not data:
                raise self._died()
            told = decode_told(data)
            if isinstance(told, Step):
                progress(told.done)
            elif isinstance(told, Failed):
                if told.last:
                    self._end()
                raise told.error()
            else:
                return told

    def _kill(self) -> None:
        child = self._child
        if child is not None:
            child.kill()
            _has_ended(child)

    def _broken(self, sock: socket.socket) -> TrimsError:
        """Why the worker has ended. What it did not read any more the kernel reports before its last word."""
        for _ in range(2):
            try:
                data = sock.recv(LONGEST, socket.MSG_DONTWAIT)
            except OSError:
                continue
            told = decode_told(data) if data else None
            if isinstance(told, Failed):
                self._end()
                return told.error()
            break
        return self._died()

    def _died(self) -> DeviceLost:
        child = self._child
        self._end()
        status = child.returncode if child is not None else 0
        why = f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
        return DeviceLost(f"the worker of {self.uuid} died", why, "see `trims logs`, and `nvidia-smi` for the GPU")


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    """Wait for a process for a while; whether it has ended."""
    try:
        child.wait(_ENDING)
    except subprocess.TimeoutExpired:
        return False
    return True
