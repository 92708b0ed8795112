"""From opening a model to its first result, and what of that is the attach, the framework's own start, and the run.

Every side is a process of its own that has imported its framework before the clock starts; what that import took is
beside. The unmodified program under `trims exec` imports trims within its time, as nobody did it before.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

from bench import bench_torch, group, zoo
from bench.bench_ort import derive
from bench.demo import MODELS, Shown
from bench.harness import Figure, Row, interleave, report
from bench.world import World

ONNX = [*MODELS, Shown("vit6", "")]
QUICK = ("magika", "resnet50")
NETWORK = "6 transformer blocks, 170 MB"
EXEC = "native program under trims exec"
Outcomes = dict[str, list[group.Outcome]]


def run(quick: bool) -> None:
    rows, notes = [], []
    with World() as world:
        world.trims("init")
        world.start()
        packages = zoo.packaged()
        for shown in (m for m in ONNX if not quick or m.name in QUICK):
            taken = measure(world, onnx(world, shown, shown.path(packages)), 2 if quick else 9)
            rows += told(shown.name, taken, "onnxruntime", "native", "pre-optimised files")
            notes += same(shown.name, taken)
        if importlib.util.find_spec("torch") is not None:
            taken = measure(world, bench_torch.prepare(world), 1 if quick else 7)
            rows += told(NETWORK, taken, "torch", "torch.load + load_state_dict", "safetensors + assign")
            notes += same(NETWORK, taken)
    report("start", "From opening a model to its first result", rows, notes, quick)


def onnx(world: World, shown: Shown, path: Path) -> dict[str, group.Spec]:
    """The ways to start one ONNX model, which is made resident."""
    world.trims("import", str(path), "--name", shown.name)
    world.trims("warm", "--for", "onnxruntime", shown.name)
    derived = derive(path, world.directory / f"derived-{shown.name}")
    trims = group.Spec("ort/trims", shown.name, "exact", 0, True, 3, shown.shapes, shown.values)
    native = replace(trims, mode="ort/native", model=str(path))
    return {
        "trims": trims,
        "native": native,
        "pre-optimised files": replace(trims, mode="ort/derived", model=str(derived)),
        EXEC: native,
    }


def measure(world: World, specs: dict[str, group.Spec], rounds: int) -> Outcomes:
    """What every way took, in turns; the first round is not counted."""
    redirected = {**world.env, **world.json("exec", "--print-env", "json")["env"]}
    outcomes: Outcomes = {label: [] for label in specs}

    def side(label: str) -> None:
        outcomes[label].append(group.run(specs[label], 1, redirected if label == EXEC else world.env))

    interleave({label: lambda label=label: side(label) for label in specs}, rounds)
    return {label: found[1:] for label, found in outcomes.items()}


def told(name: str, taken: Outcomes, framework: str, native: str, rival: str) -> list[Row]:
    """Two rows: until the first result, beside the others, and the parts of that."""
    first = {label: Figure.of([o.first for o in found]) for label, found in taken.items()}
    ours = first.pop("trims")
    mine = taken["trims"]
    parts = {
        f"then {framework}'s own start": Figure.of([o.load - o.attach for o in mine]),
        "then the first run": Figure.of([o.first - o.load for o in mine]),
        f"before: import of {framework} and trims": Figure.of([o.imported for o in mine]),
        f"before: import of {framework} alone": Figure.of([o.imported for o in taken[rival]]),
    }
    if mine[0].steady:
        parts["later: a run"] = Figure.of([o.steady for o in mine])
    met = ours.p50 <= first[native].p50 and ours.p50 <= 1.1 * first[rival].p50
    target = f"no slower than native; within 1.1x of {rival}"
    return [
        Row(f"{name}: open to first result", ours, first, target, met),
        Row(f"{name}: attach", Figure.of([o.attach for o in mine]), parts, comparable=False),
    ]


def same(name: str, taken: Outcomes) -> list[str]:
    digests = {digest for found in taken.values() for o in found for digest in o.digests}
    return [f"{name}: outputs bit-identical in all ways: {'yes' if len(digests) == 1 else 'NO'}"]
