"""Redirected programs and the life of a manager: restarts, evictions, many at once, a full place."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import cli, redirecting

import trims
from trims.client import connections
from trims.redirect import deciding, opening

ASKED = """
import sys, numpy
for path in sys.stdin:
    print(float(numpy.load(path.strip())["w"].sum()), flush=True)
"""
MANY = """
import os, sys, numpy
numpy.load(sys.argv[4])  # has imported what it takes
start, go = os.pipe()
children = []
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(start, 1)
        os._exit(0 if float(numpy.load(sys.argv[1])["w"].sum()) == float(sys.argv[3]) else 1)
    children.append(child)
os.close(start)
os.close(go)
print(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


class Program:
    """A redirected program that loads what it is told and says a number of it."""

    def __init__(self, directory: Path) -> None:
        self.report = directory / "report"
        command = [*cli.TRIMS, "exec", "--report", str(self.report), "--", sys.executable, "-Werror", "-c", ASKED]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def load(self, path: Path) -> str:
        assert self.process.stdin is not None and self.process.stdout is not None
        print(path, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.said = self.process.communicate()[1]
        assert self.process.returncode == 0, self.said

    def how(self) -> list[str]:
        return [line["how"] for line in redirecting.lines(self.report, "load")]


@pytest.fixture
def path(runtime: Any, home: Path) -> Path:
    """A file that the store knows."""
    made = redirecting.archive(home / "m.npz", n=200_000)
    redirecting.bring(runtime.store, made)
    return made


def test_a_manager_that_is_killed_restarted_and_evicts(path: Path, managers: Callable[..., Any], home: Path) -> None:
    total = redirecting.total(path)
    manager = managers()
    with Program(home) as program:
        assert program.load(path) == total == program.load(path)
        manager.request("evict", ref="m:latest", place="host", force=False, wait=True, timeout=30.0, dry_run=False)
        assert program.load(path) == total
        manager.kill()
        assert program.load(path) == total  # by the file
        managers()
        assert program.load(path) == total
        assert redirecting.outcomes(program.report) == ["redirected"] * 5
        assert program.how() == ["loaded", "hit", "loaded", "direct", "loaded"]
    assert program.said.count("\n") == 1 and "m:latest is shared by its file alone: no manager" in program.said


def test_a_place_without_room_leaves_the_files(path: Path, managers: Callable[..., Any], home: Path) -> None:
    managers(budget_host="256KiB")
    done = redirecting.execute("--report", home / "report", sys.executable, "-c", redirecting.LOADS, path)
    assert done.stdout.strip() == redirecting.total(path) and done.returncode == 0
    assert [line["how"] for line in redirecting.lines(home / "report", "load")] == ["direct"]
    done = redirecting.execute("--to", "host", sys.executable, "-c", redirecting.LOADS, path)
    assert done.stdout.strip() == redirecting.total(path) and "is loaded natively: " in done.stderr


def test_room_that_others_hold_is_not_waited_for(
    path: Path, managers: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = redirecting.archive(home / "other.npz", seed=2, n=300_000)
    redirecting.bring(home / "store", other)
    redirecting.here(monkeypatch, **os.environ)
    monkeypatch.setattr(opening, "_PATIENCE", 0.01)
    managers(budget_host="1536KiB")
    with trims.open("other") as holder:
        held = holder["w"]
        known = deciding.sources().find(path)
        assert known is not None
        model = opening.opened(known)
        assert model.how == "direct" and model["w"].nbytes == 800_000 and held.nbytes == 1_200_000
        model.close()
    del held, model
    model = opening.opened(known)
    assert model.how in ("loaded", "joined")  # however long that takes
    model.close()
    del model
    connections.close_idle()


def test_warm_brings_the_model_first(path: Path, manager: Any, home: Path) -> None:
    done = redirecting.execute(
        "--warm", "m", "--report", home / "report", sys.executable, "-c", redirecting.LOADS, path
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["how"] for line in redirecting.lines(home / "report", "load")] == ["hit"]


@pytest.mark.parametrize(("managed", "many"), [(True, 200), (False, 50)], ids=["manager", "files"])
def test_many_processes_at_once(path: Path, managers: Callable[..., Any], home: Path, managed: bool, many: int) -> None:
    other = redirecting.archive(home / "other.npz", seed=2)
    redirecting.bring(home / "store", other)
    if managed:
        managers()
    words = [sys.executable, "-c", MANY, path, str(many), redirecting.total(path), other]
    done = redirecting.execute("--report", home / "report", "--", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert redirecting.outcomes(home / "report") == ["redirected"] * (many + 1)
    ways = {line["how"] for line in redirecting.lines(home / "report", "load")}
    assert ways <= ({"loaded", "hit", "joined"} if managed else {"direct"})
