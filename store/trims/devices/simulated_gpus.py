"""A directory that stands for a machine's GPUs: which there are, their memory, who uses it, and what shall fail.

    gpus.json       [{"uuid", "name", "nbytes", "granularity", "shares", "reads_registered", "peers", "notes"}]
    failures.json   what fails, read at each call; see `Failures`
    UUID/           a file for each allocation and for each process's context on that GPU

Memory is used exactly as long as somebody has a descriptor or mapping of its file: its open file description holds a
shared flock, which the kernel ends with the last of them, however that process ends. What nobody holds is removed by
the next who looks. Each look is exclusive, so nobody takes another's glance for a holder.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from typing import Any

from trims.devices.driver import Gpu
from trims.errors import DeviceLost, NoRoom
from trims.linux import flock
from trims.units import format_size

CONTEXT = 8 << 20
"""Bytes that a process's context on a simulated GPU counts for: enough to be seen, of a real one's hundreds of MB."""
_PATIENCE = 60.0  # seconds; whoever has the directory's lock looks at a few files


def make(
    directory: str,
    gpus: int = 2,
    nbytes: int = 256 << 20,
    granularity: int = 2 << 20,
    shares: bool = True,
    reads_registered: bool = True,
    peers: bool = True,
) -> str:
    """Make a directory of simulated GPUs, each with `nbytes` of memory; returns it.

    granularity, shares, reads_registered: as of `trims.devices.driver.Gpu`. peers: whether they reach one another.
    """
    uuids = [f"SIM-{n:08x}-0000-4000-8000-{n:012x}" for n in range(gpus)]
    described = [
        {
            "uuid": uuid, "name": "simulated GPU", "nbytes": nbytes, "granularity": granularity,
            "shares": shares, "reads_registered": reads_registered,
            "peers": [other for other in uuids if peers and other != uuid], "notes": [],
        }
        for uuid in uuids
    ]  # fmt: skip
    for uuid in uuids:
        os.makedirs(os.path.join(directory, uuid), exist_ok=True)
    _write(os.path.join(directory, "gpus.json"), described)
    return directory


def fail(directory: str, **failures: object) -> None:
    """What fails from now on, in all processes that use the directory; nothing when none is named. See `Failures`."""
    _write(os.path.join(directory, "failures.json"), failures)


def _write(path: str, value: object) -> None:
    temporary = f"{path}.{os.urandom(8).hex()}"
    with open(temporary, "x") as file:
        json.dump(value, file)
    os.rename(temporary, path)


class Failures:
    """What DIR/failures.json says of the calls of one process; a call goes by the name of its method.

    {"create": [3]}         the third `create` that this process makes raises NoRoom, as `allocate` does; any other
                            call DeviceLost
    {"lost": ["SIM-..."]}   everything about that GPU raises DeviceLost
    {"die": "copy_in"}      the process kills itself at its next such call
    {"hold": {"wait": F}}   such calls wait until somebody has opened the FIFO F for writing, and closed it again
    """

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "failures.json")
        self._lock = threading.Lock()
        self._calls: Counter[str] = Counter()

    def check(self, call: str, *uuids: str) -> None:
        """Count a call, on these GPUs, and raise when it shall fail."""
        with self._lock:
            self._calls[call] += 1
            count = self._calls[call]
        try:
            with open(self._path) as file:
                chosen: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return
        if chosen.get("die") == call:
            os.kill(os.getpid(), signal.SIGKILL)
        fifo = chosen.get("hold", {}).get(call)
        if fifo is not None:
            with open(fifo, "rb") as held:
                held.read()
        for uuid in uuids:
            if uuid in chosen.get("lost", ()):
                raise DeviceLost(f"GPU {uuid} is lost", f"{call} was chosen to fail")
        if count in chosen.get(call, ()):
            if call in ("create", "allocate"):
                raise NoRoom("no memory on a simulated GPU", "this allocation was chosen to fail")
            raise DeviceLost(f"the simulated GPU driver failed in {call}", "it was chosen to fail")


class Machine:
    """The GPUs of a directory, as one process sees them."""

    def __init__(self, directory: str, visible: str | None) -> None:
        """visible: CUDA_VISIBLE_DEVICES, or None. Raises DeviceLost when there is no such directory."""
        self._directory = directory
        try:
            with open(os.path.join(directory, "gpus.json")) as file:
                described = json.load(file)
            gpus = [Gpu(n, *(gpu[name] for name in Gpu._fields[1:])) for n, gpu in enumerate(described)]
            self._peers = {gpu["uuid"]: frozenset(gpu.get("peers", ())) for gpu in described}
            self._notes = {gpu["uuid"]: tuple(gpu.get("notes", ())) for gpu in described}
        except (OSError, ValueError, TypeError, LookupError) as error:
            hint = "TRIMS_SIMULATED_GPUS names a directory that trims.devices.simulated.make made"
            raise DeviceLost(f"no simulated GPUs in {directory}", str(error), hint) from None
        self._totals = {gpu.uuid: gpu.nbytes for gpu in gpus}
        chosen = choose(list(self._totals), visible)
        self.gpus = tuple(gpus[index]._replace(ordinal=ordinal) for ordinal, index in enumerate(chosen))

    def reaches(self, uuid: str, other: str) -> bool:
        return other in self._peers[uuid]

    def notes(self, uuid: str) -> tuple[str, ...]:
        return self._notes[self._known(uuid)]

    def usage(self, uuid: str) -> tuple[int, int]:
        """(total, used), of any GPU of the machine, visible or not."""
        with self._locked():
            return self._usage(self._known(uuid))

    def create(self, uuid: str, nbytes: int, kind: str = "memory") -> int:
        """A descriptor of new memory of a GPU. Raises NoRoom beyond what it has."""
        with self._locked():
            total, used = self._usage(uuid)
            if used + nbytes > total:
                what = f"no memory for {format_size(nbytes)} on GPU {uuid}"
                raise NoRoom(what, f"{format_size(total - used)} of {format_size(total)} are left")
            path = os.path.join(self._directory, uuid, f"{kind}-{os.getpid()}-{os.urandom(8).hex()}")
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, nbytes)
                flock.try_lock(fd, exclusive=False)
            except BaseException:
                os.close(fd)
                os.unlink(path)
                raise
        return fd

    def find(self, uuid: str, name: str) -> int:
        """A descriptor of memory that its maker still holds, without holding it. Raises DeviceLost when nobody does."""
        try:
            fd = os.open(os.path.join(self._directory, uuid, name), os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            fd = -1
        if fd < 0 or not self.lives(fd):
            if fd >= 0:
                os.close(fd)
            raise DeviceLost(f"there is no such memory on GPU {uuid}", "who allocated it has freed it, or has ended")
        return fd

    def lives(self, fd: int) -> bool:
        """Whether somebody holds the memory behind a descriptor that does not hold it."""
        with self._locked():
            probe = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return not flock.try_lock(probe, exclusive=True)
            finally:
                os.close(probe)

    def owner(self, fd: int) -> str:
        """The UUID of the GPU that memory is of. Raises DeviceLost when that is none which the process sees."""
        path = os.readlink(f"/proc/self/fd/{fd}")
        uuid = os.path.basename(os.path.dirname(path))
        if not os.path.basename(path).startswith("memory-") or uuid not in {g.uuid for g in self.gpus}:
            raise DeviceLost("a descriptor is no memory of a GPU that this process sees", path)
        return uuid

    def _known(self, uuid: str) -> str:
        if uuid not in self._peers:
            raise DeviceLost(f"no GPU {uuid}", f"{self._directory} has {', '.join(self._peers) or 'none'}")
        return uuid

    def _locked(self) -> flock.held:
        return flock.held(os.path.join(self._directory, "lock"), exclusive=True, timeout=_PATIENCE)

    def _usage(self, uuid: str) -> tuple[int, int]:
        used = 0
        with os.scandir(os.path.join(self._directory, uuid)) as entries:
            for entry in entries:
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    if flock.try_lock(fd, exclusive=True):
                        os.unlink(entry.path)
                    else:
                        used += os.fstat(fd).st_size
                finally:
                    os.close(fd)
        return self._totals[uuid], used


def choose(uuids: list[str], visible: str | None) -> list[int]:
    """The indices that CUDA_VISIBLE_DEVICES chooses, in its order: up to the first that names none, or one twice."""
    if visible is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for word in visible.split(","):
        name = word.strip()
        found = [n for n, uuid in enumerate(uuids) if str(n) == name or (name[:4] == "SIM-" and uuid.startswith(name))]
        if len(found) != 1 or found[0] in chosen:
            break
        chosen += found
    return chosen
