"""Warming a model from disk to host memory, beside raw reads of the same bytes into the same kind of memory.

Cold: the container's pages are dropped from the page cache, and the raw side reads past it. Warm: they are in the page
cache, and both sides write into pages that were made ready before (the manager's spare pool).
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from pathlib import Path

from bench import zoo
from bench.harness import Figure, Row, interleave, report
from bench.world import World

PIECE = 16 << 20


def run(quick: bool) -> None:
    nbytes = (64 if quick else 1024) << 20
    with World("3GiB") as world:
        world.env["TRIMS_SPARE"] = str(nbytes + (64 << 20))
        world.trims("init")
        world.trims("import", str(zoo.synthetic(nbytes)), "--name", "m")
        (container,) = (world.store / "containers").glob("*/*.h5")
        pid = world.start()
        rows = [measure(world, pid, container, cold, 2 if quick else 5) for cold in (True, False)]
    report("warm", f"Warm {nbytes >> 20} MiB, disk to host", [row for pair in rows for row in pair], [], quick)


def measure(world: World, pid: int, container: Path, cold: bool, rounds: int) -> list[Row]:
    target = Memory(container.stat().st_size)
    used: dict[str, list[float]] = {"trims": [], "raw": []}

    def trims() -> float:
        world.trims("evict", "m")
        await_spare(world)
        (drop if cold else touch)(container)
        before = processor_seconds(pid)
        (item,) = world.json("warm", "m")["items"]
        used["trims"].append(processor_seconds(pid) - before)
        return float(item["seconds"])

    def raw() -> float:
        (drop if cold else touch)(container)
        before = time.process_time()
        begun = time.perf_counter()
        target.read(container, direct=cold)
        taken = time.perf_counter() - begun
        used["raw"].append(time.process_time() - before)
        return taken

    world.trims("warm", "m")
    figures = interleave({"trims": trims, "raw": raw}, rounds)
    target.close()
    ours, beside = figures["trims"], figures["raw"]
    share = 0.9 if cold else 0.8
    label = "cold page cache" if cold else "warm page cache, spare pages"
    how = "raw O_DIRECT, 2 threads" if cold else "raw preadv, 2 threads"
    cpu = {side: Figure.of(values) for side, values in used.items()}
    return [
        Row(label, ours, {how: beside}, f"{share} of raw", beside.p50 >= share * ours.p50),
        Row(f"{label}: processor seconds", cpu["trims"], {how: cpu["raw"]}),
    ]


def await_spare(world: World) -> None:
    """Wait until the manager's spare pool is full again, so that every round finds the same memory."""
    from trims.paths import RuntimePaths
    from trims.shmindex import reader

    last, since = -1, time.monotonic()
    while time.monotonic() - since < 1.0:
        snapshot = reader.read(RuntimePaths(str(world.socket)).index)
        spare = sum(place.spare for place in snapshot.places) if snapshot else 0
        if spare != last:
            last, since = spare, time.monotonic()
        time.sleep(0.05)


class Memory:
    """A memfd of whole pages that are there already, as a spare region's are."""

    def __init__(self, nbytes: int) -> None:
        self.fd = os.memfd_create("raw")
        os.posix_fallocate(self.fd, 0, nbytes)
        self.map = mmap.mmap(self.fd, nbytes)
        self.nbytes = nbytes

    def read(self, path: Path, direct: bool, threads: int = 2) -> None:
        view = memoryview(self.map)
        fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if direct else 0))
        whole = self.nbytes // 4096 * 4096

        def work(first: int) -> None:
            for at in range(first, whole, threads * PIECE):
                os.preadv(fd, [view[at : min(at + PIECE, whole)]], at)

        working = [threading.Thread(target=work, args=(n * PIECE,)) for n in range(threads)]
        for thread in working:
            thread.start()
        for thread in working:
            thread.join()
        os.close(fd)
        view.release()

    def close(self) -> None:
        self.map.close()
        os.close(self.fd)


def drop(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def touch(path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while file.read(PIECE):
            pass


def processor_seconds(pid: int) -> float:
    """What a process has used of the processor, its ended children included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")
