"""What trims is for, shown on real models: many processes, each natively and through trims, side by side.

The models are what Python packages ship, and a ResNet-50 of true size with random weights. Everything is written to
temporary directories that are gone at the end; fetched and built model files stay in build/models for the next run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import group, zoo
from bench.world import Failed, World, private_memory
from trims.linux import process

MIB = 1 << 20


@dataclass(frozen=True)
class Shown:
    """A model of the demonstration: its name, where its file is, and the inputs that its graph leaves open."""

    name: str
    file: str
    package: str = ""
    shapes: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)

    def path(self, packages: dict[str, Path]) -> Path:
        return packages[self.package] / self.file if self.package else zoo.built(self.name)


MODELS = [
    Shown("magika", "model.onnx", "magika"),
    Shown("basic-pitch", "nmp.onnx", "basic-pitch"),
    Shown(
        "silero-vad", "silero_vad_op18_ifless.onnx", "silero-vad",
        {"input": [1, 576], "state": [2, 1, 128]}, {"sr": 16000},
    ),
    Shown("ocr-det", "ch_PP-OCRv4_det_infer.onnx", "rapidocr-onnxruntime", {"x": [1, 3, 160, 160]}),
    Shown("ocr-rec", "ch_PP-OCRv4_rec_infer.onnx", "rapidocr-onnxruntime", {"x": [1, 3, 48, 160]}),
    Shown("resnet50", ""),
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    nbytes: int
    native: group.Outcome
    trims: group.Outcome

    @property
    def identical(self) -> bool:
        return len(self.native.digests | self.trims.digests) == 1


def say(text: str = "") -> None:
    print(text, flush=True)


def step(text: str, action: Callable[[], str]) -> None:
    """Do one thing, and say what it was and what it took."""
    begun = time.monotonic()
    note = action()
    say(f"  {text:<58} {time.monotonic() - begun:6.1f} s  {note}".rstrip())


def prepare(world: World, paths: dict[str, Path]) -> None:
    def imported(name: str) -> str:
        world.trims("import", str(paths[name]), "--name", name)
        return f"{paths[name].stat().st_size / MIB:.1f} MiB"

    step("trims init", lambda: world.trims("init")[:0])
    for name in paths:
        step(f"trims import {paths[name].name} --name {name}", lambda name=name: imported(name))
    step("trims start", lambda: f"pid {world.start()}")
    step(f"trims warm {' '.join(paths)}", lambda: world.trims("warm", *paths)[:0])


def compare(world: World, model: Shown, path: Path, count: int) -> Row:
    inputs = {"shapes": model.shapes, "values": model.values}
    native = group.run(group.Spec("ort/native", str(path), **inputs), count, world.env)
    trims = group.run(group.Spec("ort/trims", model.name, imported=True, **inputs), count, world.env)
    return Row(model.name, path.stat().st_size, native, trims)


HEAD = """\
                   first result ms         from start ms    PSS MiB/process      total MiB   same
model          MiB  native  trims          native  trims    native  trims    native  trims   bits"""


def table(rows: list[Row]) -> str:
    lines = [HEAD]
    for row in rows:
        a, b = row.native, row.trims
        lines.append(
            f"{row.name:<12} {row.nbytes / MIB:5.1f}"
            f"  {a.first * 1e3:6.0f} {b.first * 1e3:6.0f} {a.first / b.first:5.1f}x"
            f"  {a.spawn * 1e3:7.0f} {b.spawn * 1e3:6.0f}  {a.pss / MIB:8.0f} {b.pss / MIB:6.0f}"
            f"  {a.pss_total / MIB:8.0f} {b.pss_total / MIB:6.0f}  {'yes' if row.identical else 'NO':>5}"
        )
    return "\n".join(lines)


def finish(world: World, pid: int, started: int) -> None:
    step("trims evict --all", lambda: world.trims("evict", "--all", "--yes")[:0])
    step("trims stop", lambda: world.trims("stop")[:0])
    if process.is_alive(pid, started):
        raise Failed(f"the manager, pid {pid}, still runs")


def demo(count: int, names: list[str]) -> int:
    models = [model for model in MODELS if not names or model.name in names]
    say("Models")
    found: dict[str, Path] = {}
    packages: dict[str, Path] = {}
    if any(model.package for model in models):
        step("fetch the models of " + ", ".join(zoo.PACKAGES), lambda: packages.update(zoo.packaged()) or "")
    for model in models:
        if not model.package:
            step(f"build {model.name} (random weights)", lambda model=model: str(model.path(packages))[:0])
        found[model.name] = model.path(packages)
    with World() as world:
        say("\nStore and manager, in a private directory")
        prepare(world, found)
        pid = world.manager_pid()
        started = process.start_time(pid)
        say(f"\nEach model in {count} processes at once, one thread each, natively and then through trims")
        rows = []
        for model in models:
            step(model.name, lambda model=model: rows.append(compare(world, model, found[model.name], count)) or "")
        manager = private_memory(pid)
        say(f"\n{table(rows)}\n")
        say("Medians. First result: from the moment at which all processes have their libraries imported. From start:")
        say("imports included, without the wait for the others. PSS counts a shared page once over all processes.")
        say(f"The manager itself takes {manager / MIB:.0f} MiB beside the shared weights, which the totals count.\n")
        say("End")
        finish(world, pid, started)
        left = [world.directory, world.runtime]
    say(f"  nothing is left: {all(not path.exists() for path in left)}")
    return 0 if all(row.identical for row in rows) else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--processes", type=int, default=8, help="how many at once (8)")
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"of {', '.join(m.name for m in MODELS)}; default all"
    )
    args = parser.parse_args()
    unknown = set(args.models) - {model.name for model in MODELS}
    if unknown:
        parser.error(f"no model {', '.join(sorted(unknown))} here")
    begun = time.monotonic()
    try:
        status = demo(args.processes, args.models)
    except (Failed, OSError, RuntimeError, subprocess.SubprocessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    say(f"  {time.monotonic() - begun:.0f} s in all")
    return status


if __name__ == "__main__":
    sys.exit(main())
