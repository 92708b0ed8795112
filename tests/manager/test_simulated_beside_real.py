"""Calibration and validation with real processes: small, so that only what must hold on a busy machine is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trims.errors import UsageError
from trims.workload import calibrate, cost, fits, outcomes, validate
from trims.workload.models import ModelSpec
from trims.workload.setting import Setting
from trims.workload.world import World
from trims_cli import bench_cost

MIB = 1 << 20


@pytest.fixture
def furnished(home: Path) -> Iterator[tuple[World, fits.Room]]:
    made = []
    for number in (1, 2, 3, 4):
        path = home / f"m{number}.safetensors"
        save_file({"t": np.full(number * MIB // 8, float(number))}, path)
        made.append(ModelSpec(f"m{number}", number * MIB, 1, file=str(path)))
    with World(str(home / "work")) as world:
        world.import_models(made)
        placed = tuple(replace(model, nbytes=world.of(model).nbytes) for model in made)
        yield world, fits.Room(tuple(made), placed)


def test_the_same_requests_are_hits_for_real_and_simulated(furnished: tuple[World, fits.Room]) -> None:
    world, room = furnished
    check = validate.Check("one client", "zipf:s=1", 1.0, 1, "lru", "warm", 0.6)
    said: list[str] = []
    verdict = validate.verify(world, room, cost.ASSUMED, check, 30, 2, said.append)  # type: ignore[arg-type]
    assert verdict.real_hits == verdict.simulated_hits and verdict.hits_agree
    assert 0 < verdict.real_hits[0] < 1 and verdict.budget == int(room.nbytes * 0.6)
    assert all(0 < mean < 5 for mean in (*verdict.real_mean, *verdict.simulated_mean))
    assert said == ["pace", "one client, run 1", "pace", "one client, run 2", "pace"] and not world.running


def test_what_runs_cost_is_fitted_from_them(furnished: tuple[World, fits.Room]) -> None:
    world, room = furnished
    asked = calibrate._draw(4, 30, 2)
    run = calibrate._loads(world, room, Setting(function="weights"), asked, 1, "warm", lambda name: None)
    parts = fits.Parts([run], room)
    link = fits.link_of(run, parts, room)
    figures = [parts.fork, parts.finish, parts.ready.fixed, parts.compute.fixed, link.latency]
    assert all(0 <= figure < 1 for figure in figures) and math.isfinite(link.alone) and link.alone > 0
    assert (run.outcomes["how"] == outcomes.LOADED).sum() > 4
    found = fits.first(parts, room, {1: run}, {})
    assert cost.from_json(cost.to_json(found)) == found and found.measured


def test_what_cannot_be_validated_is_said_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checks"):
        bench_cost.choose("6")
    with pytest.raises(UsageError, match="no checks"):
        bench_cost.choose("one")
    assert [check.name for check in bench_cost.choose("4,1")] == ["a cold disk", "one client"]
    with pytest.raises(UsageError, match="say nothing"):
        bench_cost.check(None, 5)
    with pytest.raises(UsageError, match="no such directory"):
        bench_cost.check(str(tmp_path / "no" / "f.json"), 100)
