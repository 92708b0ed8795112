"""Real runs of small workloads: what is asked for is served, in order, by processes of which none is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import leaks, pages
from safetensors.numpy import save_file

from trims.errors import Damaged, NoRoom, TrimsError, UsageError
from trims.workload import outcomes as rows
from trims.workload import runner
from trims.workload.cells import Wanted, measure
from trims.workload.distributions import parse
from trims.workload.models import ModelSpec
from trims.workload.plan import Plan, Stream
from trims.workload.setting import Setting
from trims.workload.world import World

MIB = 1 << 20


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelSpec, ...]:
    """Three models of 1, 2 and 3 MiB."""
    directory, rng, made = tmp_path_factory.mktemp("workload"), np.random.default_rng(0), []
    for number in (1, 2, 3):
        path = directory / f"m{number}.safetensors"
        save_file({f"t{n}": rng.random(number * MIB // 16) for n in range(2)}, path)
        made.append(ModelSpec(f"m{number}", number * MIB, 2, file=str(path)))
    return tuple(made)


@pytest.fixture
def world(home: Path, specs: tuple[ModelSpec, ...]) -> Iterator[World]:
    with World(str(home / "work")) as world:
        world.import_models(specs)
        yield world


def plan(specs: tuple[ModelSpec, ...], **fields: object) -> Plan:
    given = {"clients": 2, "requests": 12, "seed": 3} | fields
    return Plan(specs, parse("uniform"), **given)  # type: ignore[arg-type]


def test_a_closed_loop_is_served_in_order_on_both_sides(world: World, specs: tuple[ModelSpec, ...]) -> None:
    stream = plan(specs).stream()
    world.start(16 * MIB)
    told: list[tuple[int, int]] = []
    trims = runner.run(stream, Setting(), world, lambda done, total: told.append((done, total)))
    native = runner.run(stream, Setting(side="native"), world)
    for run in (trims, native):
        rows.validate(run.outcomes, len(specs))
        assert (run.outcomes["request"] == np.arange(12)).all() and (run.outcomes["model"] == stream.model).all()
        assert set(run.outcomes["client"]) == {0, 1} and not run.reasons
        # Taken in the list's order: a request is asked for after the one before it, but for the moment of noting it.
        assert (np.diff(run.outcomes["asked"]) > -0.005).all()
        assert run.coldness is not None and run.coldness.cache == "warm"
        assert run.coldness.proven or run.notes  # a machine short of memory says so
    assert told[-1] == (12, 12) and [done for done, _ in told] == sorted(done for done, _ in told)
    assert (native.outcomes["how"] == rows.NATIVE).all()
    hows = np.bincount(trims.outcomes["how"], minlength=3)
    assert hows[rows.LOADED] == 3 and hows[:3].sum() == 12  # one load a model: all fit
    assert trims.counters["loads"] == 3
    assert len(world.checksums) == 3  # both sides gave the same


def test_interpreters_started_anew_serve_too(world: World, specs: tuple[ModelSpec, ...]) -> None:
    world.start(16 * MIB)
    run = runner.run(plan(specs, requests=2).stream(), Setting(start="process"), world)
    assert not run.reasons and (run.outcomes["how"] <= rows.LOADED).all()
    assert ((run.outcomes["ready"] - run.outcomes["began"]) > 0.01).all()  # imports count


def test_requests_arrive_at_their_times_and_wait_for_a_client(world: World, specs: tuple[ModelSpec, ...]) -> None:
    stream = Stream(specs, np.zeros(4, np.int32), np.array([0.0, 0.0, 0.0, 0.3]), clients=1)
    run = runner.run(stream, Setting(side="native"), world)
    asked, began = run.outcomes["asked"], run.outcomes["began"]
    assert asked == pytest.approx(stream.at, abs=1e-6)
    assert (np.diff(run.outcomes["done"]) > 0).all()
    assert began[2] > run.outcomes["done"][1] and began[3] >= 0.3  # queued; not before its time


def test_cold_loads_find_nothing_in_the_page_cache(world: World, specs: tuple[ModelSpec, ...]) -> None:
    pages.need_dropping(Path(specs[0].file).parent)
    pages.need_dropping(Path(world.directory))
    world.start(16 * MIB)
    stream = plan(specs, clients=1, requests=4).stream()
    for side in ("trims", "native"):
        run = runner.run(stream, Setting(side=side, cache="cold"), world)
        assert run.coldness is not None and run.coldness.looks == 4 == len(run.cached)
        assert run.coldness.proven and not run.notes


def test_models_alone_are_timed_four_ways(world: World, specs: tuple[ModelSpec, ...]) -> None:
    world.start(4 * MIB)  # the largest alone has room
    for setting, how in (
        (Setting(side="native"), "hit"), (Setting(), "hit"), (Setting(), "load"), (Setting(cache="cold"), "load"),
    ):  # fmt: skip
        found = runner.alone(specs, setting, world, repeats=2, how=how)
        assert list(found) == ["m1", "m2", "m3"]
        assert all(0 < baseline.ready <= baseline.done and baseline.repeats == 2 for baseline in found.values())
    with pytest.raises(UsageError, match="unknown kind"):
        runner.alone(specs, Setting(), world, how="fast")


def test_a_cell_compares_the_sides(world: World, specs: tuple[ModelSpec, ...]) -> None:
    alone = runner.alone(specs, Setting(side="native"), world, repeats=2)
    seen: list[str] = []
    wanted = Wanted(Setting(), 4 * MIB, "lru", ("trims", "native", "unlimited"))
    found = measure(plan(specs, clients=1), wanted, world, alone, ending=lambda side, run: seen.append(side))
    cell = found.cell
    assert seen == ["trims", "native", "unlimited"] and not world.running
    assert cell.native is not None and cell.unlimited is not None and cell.speedup is not None
    assert cell.trims.loads > cell.unlimited.loads == 3
    assert cell.batch_ratio == pytest.approx(cell.native.seconds / cell.trims.seconds)
    assert cell.speedup_interval is not None and cell.speedup_interval[0] <= cell.speedup <= cell.speedup_interval[1]


def test_a_function_that_fails_is_a_failed_request_with_its_reason(world: World, specs: tuple[ModelSpec, ...]) -> None:
    stream = Stream(specs, np.array([0, 1, 0], np.int32))
    os.rename(specs[0].file, specs[0].file + ".away")
    try:
        with pytest.raises(TrimsError, match=r"m1\.safetensors"):  # found out before any request
            runner.run(stream, Setting(side="native"), world)
    finally:
        os.rename(specs[0].file + ".away", specs[0].file)
    refused = runner.run(stream, Setting(), Stopped(world))
    assert list(refused.outcomes["how"]) == [rows.FAILED] * 3
    assert all("ManagerNotRunning" in why for why in refused.reasons.values())


class Stopped(World):
    """A world whose manager has just ended, unknown to the coordinator."""

    def __init__(self, world: World) -> None:
        self.__dict__.update(world.__dict__)
        self.budget = 16 * MIB

    def counters(self) -> dict[str, int]:
        return {}


def test_a_request_that_takes_too_long_is_ended(world: World, specs: tuple[ModelSpec, ...]) -> None:
    run = runner.run(plan(specs, requests=2).stream(), Setting(side="native", timeout=0.001), world)
    assert set(run.reasons) == {0, 1} and "it took longer than 0.001 s" in run.reasons[0]


def test_a_client_that_is_killed_fails_its_request_and_is_replaced(world: World, specs: tuple[ModelSpec, ...]) -> None:
    killed: list[int] = []

    def kill_once(number: int) -> None:
        if number == 2 and not killed:
            (client,) = [pid for pid in _children() if b"trims.workload.function" in _command(pid)]
            killed.append(client)
            os.kill(client, signal.SIGKILL)  # at rest: the next request goes to the one that takes its place

    run = runner.run(plan(specs, clients=1, requests=5).stream(), Setting(side="native"), world, before=kill_once)
    assert killed and len(run.outcomes) == 5
    assert (run.outcomes["how"] == rows.NATIVE).all()


def test_a_client_killed_at_work_takes_its_request_with_it(world: World, specs: tuple[ModelSpec, ...]) -> None:
    def kill(done: int, total: int) -> None:
        if done == 1:
            for pid in _children():
                if b"trims.workload.function" in _command(pid):
                    os.kill(pid, signal.SIGKILL)

    stream = Stream(specs, np.full(6, 2, np.int32), clients=1)
    run = runner.run(stream, Setting(side="native"), world, kill)
    assert len(run.outcomes) == 6
    assert all("signal 9 ended its client" in why or "has died" in why for why in run.reasons.values())
    assert rows.ok(run.outcomes).sum() >= 4


def test_different_results_end_a_run(world: World, specs: tuple[ModelSpec, ...], tmp_path: Path) -> None:
    stream = Stream(specs[:1], np.zeros(1, np.int32))
    runner.run(stream, Setting(side="native"), world)
    world.checksums = {key: value + 1 for key, value in world.checksums.items()}
    with pytest.raises(Damaged, match="m1 gave two different results"):
        runner.run(stream, Setting(side="native"), world)


def test_what_cannot_fit_is_refused_before_anything_runs(world: World, specs: tuple[ModelSpec, ...]) -> None:
    world.start(2 * MIB)
    with pytest.raises(NoRoom, match=r"budget of 2.0MiB cannot hold m[23]"):
        runner.run(plan(specs).stream(), Setting(), world)
    huge = Stream((ModelSpec("m1", 1 << 50, 1, file=specs[0].file),), np.zeros(1, np.int32), clients=4)
    with pytest.raises(NoRoom, match="4 clients do not fit into memory"):
        runner.run(huge, Setting(side="native"), world)
    with pytest.raises(UsageError, match="onnxruntime cannot run m"):
        runner.run(plan(specs).stream(), Setting(function="onnxruntime"), world)


def test_an_interrupted_run_leaves_no_process(world: World, specs: tuple[ModelSpec, ...]) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(done: int, total: int) -> None:
        if done:
            raise Interrupted

    before = set(_children())  # such as the tracker that multiprocessing keeps, if a test before used it
    with pytest.raises(Interrupted):
        runner.run(plan(specs, requests=50).stream(), Setting(side="native"), world, interrupt)
    assert not leaks.wait_ended(set(_children()) - before, leaks.GRACE)


def _children() -> list[int]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
