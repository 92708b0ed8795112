"""What `trims exec` costs a program that loads no model, and what a load costs that it redirects."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from bench.harness import Figure, Row, interleave, report
from bench.world import TRIMS, World

LIMIT = 0.010  # seconds that a program without models may lose at its start
LOADS = """
import json, sys, time
import numpy

def load(path):
    begun = time.perf_counter()
    with numpy.load(path) as found:
        arrays = {name: found[name] for name in found.files}
    taken = time.perf_counter() - begun
    total = sum(float(array.ravel()[-1]) for array in arrays.values())
    return taken, arrays

first, arrays = load(sys.argv[1])
again, more = load(sys.argv[1])
del arrays, more
unknown, arrays = load(sys.argv[2])
print(json.dumps([first, again, unknown]))
"""


def run(quick: bool) -> None:
    with World() as world:
        # Compiled once, as an installation is, wherever this is run from.
        world.env["PYTHONPYCACHEPREFIX"] = str(world.directory / "compiled")
        world.env.pop("PYTHONDONTWRITEBYTECODE", None)
        world.trims("init")
        rows = starts(world, 5 if quick else 40)
        rows += loads(world, (32 if quick else 256) << 20, 3 if quick else 15)
    report("exec", "Unmodified programs under trims exec", rows, [], quick)


def starts(world: World, rounds: int) -> list[Row]:
    """Programs that load nothing: started bare, with the redirection in their environment, and by the command."""
    redirected = world.env | json.loads(world.trims("exec", "--print-env", "json"))["env"]
    bare, numpy, command = ["-c", "pass"], ["-c", "import numpy"], [TRIMS, "exec", "--", sys.executable]
    sides = {
        "python": lambda: processor_seconds([sys.executable, *bare], world.env),
        "redirected": lambda: processor_seconds([sys.executable, *bare], redirected),
        "trims exec": lambda: processor_seconds([*command, *bare], world.env),
        "numpy": lambda: processor_seconds([sys.executable, *numpy], world.env),
        "redirected numpy": lambda: processor_seconds([sys.executable, *numpy], redirected),
    }
    found = interleave(sides, rounds)
    lost = found["redirected"].p50 - found["python"].p50
    target = "10 ms more at most"
    return [
        Row(
            "python -c pass, redirected (processor time)", found["redirected"], {"not redirected": found["python"]},
            target, lost < LIMIT,
        ),
        Row(
            "python -c pass, and the command `trims exec` itself",
            found["trims exec"],
            {"not redirected": found["python"]},
        ),
        Row(
            "python -c 'import numpy', redirected", found["redirected numpy"], {"not redirected": found["numpy"]},
            target, found["redirected numpy"].p50 - found["numpy"].p50 < LIMIT,
        ),
    ]  # fmt: skip


def processor_seconds(command: list[str], env: dict[str, str]) -> float:
    """Processor time of a command from start to end: of short ones, on any machine, it varies far less than time."""
    child = os.posix_spawn(command[0], command, env)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed")
    return usage.ru_utime + usage.ru_stime


def loads(world: World, nbytes: int, rounds: int) -> list[Row]:
    """An archive of `nbytes`, with all its arrays read: the first in a process, one more, and one that is unknown."""
    path, other = world.directory / "model.npz", world.directory / "other.npz"
    write(path, nbytes)
    write(other, 1 << 20)
    world.trims("import", str(path), "--name", "model")
    world.start()
    world.trims("warm", "model")
    samples: dict[str, list[list[float]]] = {"native": [], "redirected": []}

    def program(side: str) -> None:
        prefix = [TRIMS, "exec", "-q", "--"] if side == "redirected" else []
        words = [*prefix, sys.executable, "-c", LOADS, str(path), str(other)]
        out = subprocess.run(words, env=world.env, stdout=subprocess.PIPE, check=True).stdout
        samples[side].append(json.loads(out))

    interleave({side: lambda side=side: program(side) for side in samples}, rounds)
    whats = (
        f"numpy.load of an archive of {nbytes >> 20} MiB, all arrays: the first load of the process",
        "one more",
        "an archive of 1 MiB that the store does not know",
    )
    rows = []
    for n, what in enumerate(whats):
        ours, theirs = (Figure.of([s[n] for s in samples[side][1:]]) for side in ("redirected", "native"))
        target = "" if n == 2 else "faster than native"
        rows.append(Row(what, ours, {"native": theirs}, target, ours.p50 < theirs.p50 if target else None))
    return rows


def write(path: Path, nbytes: int, count: int = 16) -> None:
    rng = np.random.default_rng(0)
    each = nbytes // count
    np.savez(path, **{f"layer{n}": rng.integers(0, 255, each, np.uint8).view(np.float32) for n in range(count)})
