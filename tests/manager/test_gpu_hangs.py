"""A manager ends within seconds, whatever call of a GPU's driver never returns, in its workers or in itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from helpers import leaks
from helpers.gpus import MIB, Gpus, entered
from helpers.raw import Raw

from trims.devices import simulated
from trims.devices.simulated import fail
from trims.manager import journal
from trims.paths import RuntimePaths
from trims.wire.messages import Pin, Stop, Warm

HASTY = """
import sys
from trims.manager import life
from trims.manager.run import main
from trims.transfer import gpu_link
life.ENDING, gpu_link._ENDING = 2.0, 0.2
sys.exit(main(sys.argv[1:]))
"""
"""A manager whose patience is short."""


@pytest.fixture
def hasty(runtime, monkeypatch):
    """Starts such a manager."""
    started = []

    def start(**settings: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, "TRIMS_BUDGET_HOST": "64MiB", "TRIMS_BUDGET_SPARE": "0", **settings}
        read, write = os.pipe()
        words = [sys.executable, "-c", HASTY, "--ready-fd", str(write)]
        started.append(subprocess.Popen(words, env=env, pass_fds=[write]))
        os.close(write)
        with open(read, "rb") as told:
            assert "ready" in json.loads(told.read())
        return started[-1]

    yield start
    for manager in started:
        leaks.kill({manager.pid})
        manager.wait()


@pytest.mark.parametrize(
    ("call", "shares", "whose"),
    [
        ("copy_in", True, "worker"),
        ("allocate", False, "worker"),
        ("create", True, "manager"),
        ("usage", True, "manager"),
    ],
)
def test_a_stop_now_waits_for_no_driver(put, home, runtime, monkeypatch, hasty, call, shares, whose) -> None:
    gpus = Gpus(simulated.make(str(home / "gpus"), gpus=2, nbytes=64 * MIB, shares=shares))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", gpus.directory)
    put("m", 5 * MIB)
    manager = hasty() if shares else hasty(TRIMS_GPU_SHARING="ipc")
    gate = home / "gate"
    os.mkfifo(gate)
    with Raw(runtime.socket) as client:
        client.ask(Pin, ref="m", place="host", owner="ann")
        fail(gpus.directory, hold={call: str(gate)})
        client.send(Warm(id=100, ref="m", place=gpus.place(0)))
        fd = entered(gate)
        client.send(Stop(id=101, drain=False))
        assert manager.wait(20) == 0
    paths = RuntimePaths(str(runtime.socket))
    with open(paths.log) as log:
        assert ("a call of a GPU's driver" in log.read()) == (whose == "manager")
    assert [wish.owner for wish in journal.read(paths.journal).kept] == ["ann"]
    os.close(fd)
