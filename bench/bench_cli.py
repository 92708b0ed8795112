"""What commands cost from start to end, beside a bare Python; and that listing grows only with the listing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bench import zoo
from bench.harness import Row, interleave, report
from bench.world import TRIMS, World

HOT = {"trims ls --json": ["ls", "--json"], "trims status": ["status"], "trims ps": ["ps"]}


def run(quick: bool) -> None:
    rows: list[Row] = []
    counts = [100] if quick else [1_000, 100_000]
    with World() as world:
        world.trims("init")
        world.trims("import", str(zoo.synthetic(8 << 20)), "--name", "m")
        world.start()
        world.trims("warm", "m")
        made = 0
        for count in counts:
            fill(world, made, count)
            made = count
            world.trims("ls", "--json")  # brings the snapshot up to date, once
            rows += measure(world, count, 3 if quick else 15)
    report("cli", "Commands, start to end", rows, [], quick)


def fill(world: World, first: int, last: int) -> None:
    """Refs to the one model, written without the flushes of real imports."""

    from trims.disk import sealed
    from trims.disk.catalog import FORMAT, Catalog, fields_of
    from trims.disk.store import open_store

    store = open_store(str(world.store))
    entry = Catalog(store.paths).get("m:latest")
    for n in range(first, last):
        made = entry._replace(ref=f"model-{n:06d}:latest")
        path = Path(store.paths.entry(made.ref))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sealed.seal({"format": FORMAT, **fields_of(made)}))


def measure(world: World, count: int, rounds: int) -> list[Row]:
    def command(*words: str) -> float:
        begun = time.perf_counter()
        with open(os.devnull, "wb") as null:
            subprocess.run([*words], env=world.env, stdout=null, check=True)
        return time.perf_counter() - begun

    def reading() -> float:
        """A bare Python that reads the snapshot and prints it: the least that a listing can cost."""
        code = "import sys; sys.stdout.write(open(sys.argv[1]).read())"
        return command(sys.executable, "-c", code, str(world.store / "snapshot"))

    sides = {label: lambda words=words: command(TRIMS, *words) for label, words in HOT.items()}
    sides["trims show m (typer)"] = lambda: command(TRIMS, "show", "m")
    sides["python -c pass"] = lambda: command(sys.executable, "-c", "pass")
    sides["python reads the snapshot"] = reading
    figures = interleave(sides, rounds)
    bare, snapshot = figures["python -c pass"], figures["python reads the snapshot"]
    rows = []
    for label in HOT:
        ours = figures[label]
        beside = {"python -c pass": bare}
        if label == "trims ls --json":
            beside["python reads the snapshot"] = snapshot
        floor = snapshot.p50 if label == "trims ls --json" and count > 10_000 else bare.p50
        text = "1.5x of a bare Python" if floor == bare.p50 else "1.5x of reading the snapshot"
        rows.append(Row(f"{label}, {count:,} refs", ours, beside, text, ours.p50 <= 1.5 * floor))
    typer = figures["trims show m (typer)"]
    rows.append(Row(f"trims show m, {count:,} refs", typer, {"python -c pass": bare}, "5x", typer.p50 <= 5 * bare.p50))
    return rows
