"""Import of a safetensors file, beside cp and fsync of it. The command is timed whole, its start included."""

from __future__ import annotations

import os
import shutil
import subprocess

from bench import zoo
from bench.harness import Figure, Row, interleave, report
from bench.world import World


def run(quick: bool) -> None:
    nbytes = (64 if quick else 1024) << 20
    source = zoo.synthetic(nbytes)
    with World() as world:
        copy = world.directory / "copy"

        def cp() -> None:
            subprocess.run(["cp", str(source), str(copy)], check=True)
            fd = os.open(copy, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)

        def imported() -> None:
            world.trims("import", str(source), "--name", "m")

        def each(side):  # type: ignore[no-untyped-def]
            def fresh() -> float:
                shutil.rmtree(world.store, ignore_errors=True)
                copy.unlink(missing_ok=True)
                os.sync()
                world.trims("init")
                return timed(side)

            return fresh

        figures = interleave({"trims": each(imported), "cp and fsync": each(cp)}, 2 if quick else 7)
    ours, beside = figures["trims"], figures["cp and fsync"]
    rates = [Figure.single(nbytes / figure.p50, "B/s") for figure in (ours, beside)]
    rows = [
        Row(
            f"{nbytes >> 20} MiB, 200 tensors",
            ours,
            {"cp and fsync": beside},
            "1.5x of cp",
            ours.p50 <= 1.5 * beside.p50,
        ),
        Row("the same as a rate", rates[0], {"cp and fsync": rates[1]}),
    ]
    report("import", "Import of safetensors", rows, [], quick)


def timed(action) -> float:  # type: ignore[no-untyped-def]
    import time

    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun
