"""The world of a measurement: its own store and manager, nothing of the user's, and nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import leaks
from safetensors.numpy import save_file

from trims.errors import BadInput, ManagerUnreachable, NoSpace, UsageError
from trims.workload.models import ModelSpec
from trims.workload.world import World, default_directory


def spec(directory: Path, name: str = "m", seed: int = 0, **fields: object) -> ModelSpec:
    path = directory / f"{seed}.safetensors"
    save_file({"w": np.random.default_rng(seed).random(1 << 13)}, path)
    return ModelSpec(name, 1 << 16, 1, file=str(path), **fields)  # type: ignore[arg-type]


def test_nothing_is_left_of_a_world_and_the_users_own_is_untouched(home: Path) -> None:
    work = home / "work"
    before = {name: os.environ.get(name) for name in ("TRIMS_STORE", "TRIMS_SOCKET", "XDG_RUNTIME_DIR")}
    with pytest.raises(ZeroDivisionError), World(str(work)) as world:
        world.start(1 << 24, "fifo")
        world.import_models([spec(home)])
        runtime = Path(world.socket).parent
        assert world.running and world.counters()["loads"] == 0 and len(world.socket) < 100
        assert str(world.store.root).startswith(str(work))
        world.warm([world.placed["m"].spec])
        assert world.counters()["loads"] == 1
        raise ZeroDivisionError
    assert [p.name for p in work.iterdir()] == ["lock"] and not runtime.exists() and not world.running
    assert before == {name: os.environ.get(name) for name in before}
    assert not (home / "data" / "trims").exists() and not list((home / "run").iterdir())
    with pytest.raises(ManagerUnreachable, match="does not run"):
        world.control()


def test_each_start_begins_with_nothing_resident(home: Path) -> None:
    with World(str(home / "work")) as world:
        model = spec(home)
        world.import_models([model])
        for policy in ("lru", "gdsf"):
            world.start(1 << 24, policy)
            world.warm([model])
            with world.control() as control:
                (status,) = control.request("status")
            assert (status["policy"], status["counters"]["loads"]) == (policy, 1)
        world.warm([model])
        assert world.counters()["loads"] == 1
        world.evict([model])
        world.warm([model])
        assert world.counters()["loads"] == 2


def test_a_manager_that_cannot_start_says_why(home: Path) -> None:
    with World(str(home / "work")) as world:
        with pytest.raises(UsageError, match="dance"):
            world.start(1 << 24, "dance")
        assert not world.running


def test_a_kept_world_is_not_imported_again(home: Path) -> None:
    model, told = spec(home), list[tuple[str, int, int]]()
    with World(str(home / "work"), keep=True) as world:
        world.import_models([model], lambda *said: told.append(said))
        container = Path(world.of(model).files[0])
        written = container.stat().st_mtime_ns
    assert told[-1] == ("m", 1 << 16, 1 << 16)
    with World(str(home / "work"), keep=True) as world:
        os.rename(model.file, model.file + ".old")
        with pytest.raises(BadInput, match="cannot be read"):
            world.import_models([model])
        os.rename(model.file + ".old", model.file)
        world.import_models([model])
        assert container.stat().st_mtime_ns == written and world.of(model).nbytes >= 1 << 16
        changed = spec(home, seed=0)  # the file is written anew: other times
        os.utime(changed.file, ns=(1, 1))
        world.placed.clear()
        world.import_models([changed])
        assert world.of(changed).files == (str(container),)  # the same content is the same model


def test_models_that_cannot_be_imported_are_refused(home: Path) -> None:
    with World(str(home / "work")) as world:
        with pytest.raises(BadInput, match="it has no file"):
            world.import_models([ModelSpec("m", 1, 1)])
        with pytest.raises(NoSpace, match="2 models do not fit"):
            world.import_models([ModelSpec(name, 1 << 60, 1, file="/nowhere") for name in "ab"])
        with pytest.raises(UsageError, match=r"'a b' and 'a\+b'|would both be named"):
            world.import_models([spec(home, "a b", 1), spec(home, "a-b", 2)])
        with pytest.raises(UsageError, match="was not imported"):
            world.of(ModelSpec("z", 1, 1))


def test_a_killed_world_leaves_no_process_and_the_next_one_sweeps(home: Path) -> None:
    program = "\n".join(
        (
            "import sys, time",
            "from trims.workload.world import World",
            "with World(sys.argv[1]) as world:",
            "    world.start(1 << 24)",
            "    print(world._manager.pid, world.directory, flush=True)",
            "    time.sleep(60)",
        )
    )
    work = str(home / "work")
    with subprocess.Popen([sys.executable, "-c", program, work], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        pid, directory = child.stdout.readline().split()
        with World(work):
            assert os.path.isdir(directory)  # it is in use
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not leaks.wait_ended({int(pid)}, leaks.GRACE)
    with World(work):
        assert not os.path.isdir(directory)


def test_the_work_directory_is_a_cache() -> None:
    assert default_directory({"XDG_CACHE_HOME": "/c"}) == "/c/trims/bench"
    assert default_directory({"HOME": "/h"}) == "/h/.cache/trims/bench"
