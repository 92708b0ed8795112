"""Reading the index of 10,000 residencies, beside memcpy of the same bytes; and what `top` at 10 Hz costs."""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import subprocess
import time
from pathlib import Path

from bench.harness import Figure, Row, interleave, report
from bench.world import TRIMS, World


def run(quick: bool) -> None:
    rows = []
    with World() as world:
        world.trims("init")
        slots = 10_000
        rows += copying(Path(world.directory) / "index", slots, 50 if quick else 1000)
        world.start()
        rows.append(top(world, 2 if quick else 10))
    report("index", "The index", rows, [], quick)


def copying(path: Path, slots: int, rounds: int) -> list[Row]:
    from trims.shmindex import reader
    from trims.shmindex.writer import IndexWriter

    writer = IndexWriter(
        str(path),
        ["host"],
        identity="0" * 32,
        pid=os.getpid(),
        started=1,
        uid=os.getuid(),
        since=time.time(),
        store="/s",
        socket="/s.sock",
        version="0",
        residencies=slots,
    )
    now = time.time()
    for n in range(slots):
        digest = hashlib.sha256(str(n).encode()).hexdigest()
        writer.put_residency(
            n,
            digest=digest,
            variant="raw",
            place="host",
            ref=f"model-{n}:latest",
            state="resident",
            nbytes=1 << 20,
            done=1 << 20,
            leases=0,
            pins=0,
            hits=n,
            load_seconds=0.1,
            since=now,
            last_use=now,
            expires=float("inf"),
        )
    writer.put_meta({})
    layout = writer._layout
    stride = reader.lay.HOT_STRIDE
    hot = slice(layout.hot_at, layout.hot_at + slots * stride)
    counters = slice(layout.seq_at, layout.seq_at + 8 * layout.seq_count)
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        reader.Index(str(path)) as index,
    ):
        assert len(index.snapshot().residencies) == slots
        table = reader._Table(mapped, layout.seq_at + 8 * layout.residency_seq, layout.hot_at, stride, slots)

        def copy() -> None:
            assert not table.copy()[2]

        def plain() -> None:
            assert mapped[hot] and mapped[counters]

        def rows() -> None:
            index.snapshot()

        figures = interleave({"trims": copy, "memcpy": plain}, rounds, warm=5)
        parsed = interleave({"rows": rows}, max(5, rounds // 50))["rows"]
    writer.close()
    ours = figures["trims"]
    return [
        Row("a consistent copy of 10,000 slots", ours, {"memcpy": figures["memcpy"]}, "100 us", ours.p50 <= 100e-6),
        Row("the same, as 10,000 checked Python rows", parsed),
    ]


def top(world: World, seconds: int) -> Row:
    """The share of one core that `top` at 10 Hz takes, its start not counted."""

    def used(count: int) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [TRIMS, "top", "--json", "--interval", "0.1", "--count", str(count)]
        subprocess.run(command, env=world.env, stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    share = (used(10 * seconds) - used(1)) / (seconds - 0.1)
    return Row("`trims top` at 10 Hz, share of a core", Figure.single(share, ""), {}, "under 0.02", share < 0.02)
