"""Opening a resident model of 200 tensors, beside loading the same bytes; the libraries are imported before."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from bench import zoo
from bench.harness import Figure, Row, report
from bench.world import ROOT, World

COPIES = ("safetensors load_file", "np.load of npz")


def run(quick: bool) -> None:
    rows: list[Row] = []
    sizes = [64] if quick else [64, 1024]
    with World("3GiB") as world:
        world.trims("init")
        world.start()
        for mib in sizes:
            rows += measure(world, mib, quick)
    report("attach", "trims.open of a resident model to 200 NumPy views", rows, [], quick)


def measure(world: World, mib: int, quick: bool) -> list[Row]:
    source = zoo.synthetic(mib << 20)
    name = f"m{mib}"
    world.trims("import", str(source), "--name", name)
    world.trims("warm", name)
    others = prepare(source, world.directory)
    first = [child(world, "first", name, {}, 1)["trims"][0] for _ in range(3 if quick else 15)]
    rounds = 5 if quick else 20 if mib < 1024 else 7
    samples = child(world, "next", name, others, rounds)
    figures = {label: Figure.of(values) for label, values in samples.items()}
    ours = figures.pop("trims")
    copying = min(figures[label].p50 for label in COPIES if label in figures)
    text = "200 us p50"
    met = ours.p50 <= 200e-6
    if mib >= 1024:
        text, met = f"{text}; over 100x the fastest that copies", met and copying >= 100 * ours.p50
    opened = Figure.of(first)
    return [
        Row(f"{mib} MiB: next on the connection", ours, figures, text, met),
        Row(f"{mib} MiB: first in the process", opened, {}, "600 us p50", opened.p50 <= 600e-6),
    ]


def prepare(source: Path, directory: Path) -> dict[str, str]:
    """Files of the same tensors for the other loaders: label → path."""
    import numpy as np
    from safetensors.numpy import load_file

    tensors = load_file(source)
    paths = {"safetensors load_file": str(source), "np.load of npz": str(directory / f"{source.stem}.npz")}
    np.savez(paths["np.load of npz"], **tensors)
    if importlib.util.find_spec("torch"):
        import torch

        paths["torch.load(mmap=True)"] = str(directory / f"{source.stem}.pt")
        torch.save({name: torch.from_numpy(array) for name, array in tensors.items()}, paths["torch.load(mmap=True)"])
    return paths


def child(world: World, way: str, name: str, others: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Measure in a process of its own: label → seconds."""
    argument = json.dumps({"way": way, "name": name, "others": others, "rounds": rounds})
    command = [sys.executable, "-m", "bench.opener", argument]
    done = subprocess.run(command, env=world.env, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return dict(json.loads(done.stdout))
