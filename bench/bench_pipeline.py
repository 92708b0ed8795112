"""Pipelines of three processes, native and under `trims exec`: examples/pipeline, several at once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from bench import zoo
from bench.harness import ROOT, Figure, Row, report

COUNT, PAGES, ROUNDS = 4, 6, 5


def run(quick: bool) -> None:
    compare = _example()
    packaged = zoo.packaged()["rapidocr-onnxruntime"]
    rows: list[Row] = []
    for label, classifier in (("read", None), ("classify with resnet50", zoo.built("resnet50"))):
        models = compare.stages(packaged, classifier)
        sides: dict[str, list[Any]] = {"native": [], "shared": []}
        with compare.World(models) as world:
            for _ in range(1 if quick else ROUNDS):
                for name, outcomes in sides.items():
                    outcomes.append(getattr(world, name)(2 if quick else COUNT, 2 if quick else PAGES))
        rows += _rows(f"detect, orient, {label}", **sides)
    title = f"{2 if quick else COUNT} pipelines of three processes at once, under trims exec"
    report("pipeline", title, rows, ["memory counts the manager"], quick)


def _rows(label: str, native: list[Any], shared: list[Any]) -> list[Row]:
    same = len({tuple(part) for outcome in native + shared for part in outcome.texts}) == 1

    def row(what: str, pick: Callable[[Any], list[float]], unit: str = "s") -> Row:
        ours, theirs = (Figure.of([v for outcome in side for v in pick(outcome)], unit) for side in (shared, native))
        better = ours.p50 < theirs.p50
        return Row(f"{label}: {what}", ours, {"native": theirs}, "less than native, the same answers", better and same)

    return [
        row("first answer, from the start", lambda outcome: outcome.first),
        row("the last stage's session", lambda outcome: list(outcome.sessions.values())[-1]),
        row("memory, all processes", lambda outcome: [outcome.memory], "B"),
    ]


def _example() -> ModuleType:
    """examples/pipeline/compare.py, which is a program and no package."""
    spec = importlib.util.spec_from_file_location("compare", ROOT / "examples" / "pipeline" / "compare.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module
