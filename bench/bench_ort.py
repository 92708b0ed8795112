"""ONNX Runtime sessions over shared weights, beside native ones and beside the same derived files without trims."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench import group, zoo
from bench.harness import Figure, Row, interleave, report
from bench.world import ROOT, World

DERIVE = """
import sys, onnxruntime as ort
options = ort.SessionOptions()
options.log_severity_level = 3
options.optimized_model_filepath = sys.argv[2]
for key, value in (("file_name", "derived.bin"), ("min_size_in_bytes", "1024")):
    options.add_session_config_entry("session.optimized_model_external_initializers_" + key, value)
ort.InferenceSession(sys.argv[1], options)
"""


def derive(source: Path, directory: Path) -> Path:
    """What ONNX Runtime makes of a model, as ordinary files."""
    directory.mkdir()
    target = directory / "derived.onnx"
    subprocess.run([sys.executable, "-c", DERIVE, str(source), str(target)], check=True, cwd=ROOT)
    return target


def run(quick: bool) -> None:
    rows, notes = [], []
    with World() as world:
        world.trims("init")
        names = ["resnet50"] if quick else ["resnet50", "vit6"]
        for name in names:
            world.trims("import", str(zoo.built(name)), "--name", name)
        world.start()
        for name in names:
            found = measure(world, name, 2 if quick else 9)
            rows += found[0]
            notes += found[1]
    report("ort", "ONNX Runtime: creating a session", rows, notes, quick)


def measure(world: World, name: str, rounds: int) -> tuple[list[Row], list[str]]:
    derived = derive(zoo.built(name), world.directory / f"derived-{name}")
    world.trims("warm", name)
    specs = {
        "trims": group.Spec("ort/trims", name, imported=True, repeat=3),
        "trims, import counted": group.Spec("ort/trims", name),
        "trims, prepacking off": group.Spec("ort/trims", name, share="max", imported=True, repeat=3),
        "native": group.Spec("ort/native", str(zoo.built(name)), repeat=3),
        "derived files": group.Spec("ort/derived", str(derived), repeat=3),
        "derived files, prepacking off": group.Spec("ort/derived", str(derived), share="max"),
    }
    outcomes: dict[str, list[group.Outcome]] = {label: [] for label in specs}

    def side(label: str) -> float:
        outcomes[label].append(group.run(specs[label], 1, world.env))
        return outcomes[label][-1].load

    figures = interleave({label: lambda label=label: side(label) for label in specs}, rounds)
    exact, off, native = figures["trims"], figures["trims, prepacking off"], figures["native"]
    beside = {label: figures[label] for label in ("native", "derived files", "trims, import counted")}
    wanted, wanted_off = (15, 15) if name == "resnet50" else (2, 40)
    rows = [
        Row(
            f"{name}: session, same bits as native",
            exact,
            beside,
            f"{wanted}x native; within 1.1x of the derived files",
            native.p50 / exact.p50 >= wanted and exact.p50 <= 1.1 * figures["derived files"].p50,
        ),
        Row(
            f"{name}: session, prepacking off",
            off,
            {"native": native, "derived files, prepacking off": figures["derived files, prepacking off"]},
            f"{wanted_off}x native",
            native.p50 / off.p50 >= wanted_off,
        ),
        _steady(name, outcomes),
    ]
    same = {d for label in ("trims", "native") for o in outcomes[label] for d in o.digests}
    return rows, [f"{name}: outputs bit-identical to native: {'yes' if len(same) == 1 else 'NO'}"]


def _steady(name: str, outcomes: dict[str, list[group.Outcome]]) -> Row:
    def of(label: str) -> Figure:
        return Figure.of([o.steady for o in outcomes[label]])

    ours, native = of("trims"), of("native")
    beside = {"native": native, "trims, prepacking off": of("trims, prepacking off")}
    return Row(f"{name}: one inference, steady", ours, beside, "as fast as native", ours.p50 <= 1.05 * native.p50)
