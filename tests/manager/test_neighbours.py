"""Several managers on one machine: a new one promises only the memory that the living ones do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from helpers import cli

from trims.linux import process
from trims.units import parse_size


@pytest.fixture
def neighbour(runtime: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A manager where this user's managers are by default, with three quarters of the memory; yields its budget."""
    cli.ok("init")
    budget = process.memory_limit() * 3 // 4
    with monkeypatch.context() as here:
        here.delenv("TRIMS_SOCKET")
        cli.ok("start", "--host-budget", str(budget))
    yield budget
    with monkeypatch.context() as here:
        here.delenv("TRIMS_SOCKET", raising=False)
        cli.ok("stop", "--now")


def budget_of(started: str) -> int:
    found = re.search(r"budget host (\S+)", started)
    assert found
    return parse_size(found.group(1))


def test_a_share_is_of_what_the_neighbours_leave(neighbour: int) -> None:
    left = process.memory_limit() - neighbour
    assert budget_of(cli.ok("start", "--host-budget", "50%")) == pytest.approx(left / 2, rel=0.05)
    cli.ok("stop")


def test_more_than_is_left_is_refused(neighbour: int) -> None:
    message = cli.fails(20, "start", "--host-budget", str(process.memory_limit() // 2))
    assert "there is no memory for another manager" in message and "--host-budget" in message
    assert cli.run("status").returncode == 3


def test_a_manager_that_died_takes_nothing(neighbour: int, runtime: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as here:
        here.delenv("TRIMS_SOCKET")
        cli.ok("stop", "--now")
        started = cli.ok("start", "--host-budget", "1MiB", env={"TRIMS_SOCKET": str(runtime.socket)})
        assert budget_of(started) == 1 << 20
        cli.ok("stop", env={"TRIMS_SOCKET": str(runtime.socket)})
        cli.ok("start", "--host-budget", "1MiB")  # for the fixture to stop
