"""What scripts/demo and scripts/bench are made of: groups of processes, side by side, and the arithmetic of figures."""

from __future__ import annotations

import os

import pytest
from helpers import capabilities

from bench import group
from bench.harness import Figure, interleave, show
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import open_store


def test_figures_are_medians_and_tails() -> None:
    figure = Figure.of([float(n) for n in range(101)])
    assert (figure.p50, figure.p99, figure.n) == (50.0, 99.0, 101)
    assert Figure.of([2.0]).p99 == 2.0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0000712, "s", "71.2 us"),
        (3, "s", "3 s"),
        (1 << 30, "B/s", "1 GiB/s"),
        (12345, "1/s", "12,345 1/s"),
        (0, "", "0"),
    ],
)
def test_figures_are_readable(value: float, unit: str, text: str) -> None:
    assert show(value, unit) == text


def test_sides_take_turns() -> None:
    calls: list[str] = []
    figures = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b") or 0.25}, rounds=4, warm=1)
    assert sorted(calls) == ["a"] * 5 + ["b"] * 5
    assert all(set(calls[n : n + 2]) == {"a", "b"} for n in range(0, 10, 2))
    assert figures["b"].p50 == 0.25 and figures["a"].n == 4


@capabilities.needs_onnxruntime
def test_processes_side_by_side_give_the_same_bits(manager, models) -> None:
    with open_source(str(models.onnx)) as source:
        import_model(open_store(str(manager.runtime.store)), source, "cnn:latest")
    env = dict(os.environ)
    native = group.run(group.Spec("ort/native", str(models.onnx)), 3, env)
    shared = group.run(group.Spec("ort/trims", "cnn"), 3, env)
    assert native.digests == shared.digests and len(native.digests) == 1
    assert 0 < shared.load < shared.first < shared.spawn
    assert 3 * shared.pss * 0.5 < shared.pss_total < 3 * shared.pss * 2


@capabilities.needs_onnxruntime
def test_a_worker_that_fails_says_why(runtime) -> None:
    with pytest.raises(RuntimeError, match=r"^ort/native /none: .+"):
        group.run(group.Spec("ort/native", "/none"), 2, dict(os.environ))
