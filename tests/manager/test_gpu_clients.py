"""Clients of a real manager with simulated GPUs: the host's bits, leases that end, memory that comes back."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from helpers import sources

import trims
from trims.client import connections
from trims.devices import drivers, simulated, simulated_gpus
from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.errors import DeviceLost, InUse, NoRoom
from trims.paths import RuntimePaths
from trims.shmindex import reader

WEIGHTS = {"w": sources.numbers(1, 3, 512, 1024), "b": sources.numbers(2, 8)}  # 6 MiB: several pieces to check
GPU = "gpu:SIM-00000000-0000-4000-8000-000000000000"


@pytest.fixture
def served(runtime: Any, monkeypatch: pytest.MonkeyPatch, managers: Callable[..., Any]) -> Iterator[Any]:
    """A manager with two simulated GPUs, and the model `m` in its store."""
    directory = simulated.make(str(runtime.directory.parent / "gpus"))
    monkeypatch.setenv(drivers.SIMULATED, directory)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    manager = managers()
    import_model(open_store(str(runtime.store)), sources.source(WEIGHTS), "m")
    yield manager
    gc.collect()
    connections.close_idle()


def leases(manager: Any) -> list[tuple[str, int]]:
    """(place, how many) of every residency, as the index says."""
    snapshot = reader.read(RuntimePaths(str(manager.runtime.socket)).index)
    assert snapshot is not None
    return sorted((r.place, r.leases) for r in snapshot.residencies)


def until(manager: Any, expected: list[tuple[str, int]]) -> None:
    """Wait for the index to say so; between looks the manager is asked."""
    start = time.monotonic()
    with manager.control() as control:
        while leases(manager) != expected:
            assert time.monotonic() - start < 20, (leases(manager), expected)
            control.request("status")


def until_freed(manager: Any) -> None:
    """Wait until nothing but contexts (of the process that loads) is in the first GPU's memory."""
    driver = simulated.SimulatedDriver(os.environ[drivers.SIMULATED])
    start = time.monotonic()
    with manager.control() as control:
        while (used := driver.usage(driver.gpus()[0].uuid).used) > simulated_gpus.CONTEXT:
            assert time.monotonic() - start < 20, used
            control.request("status")


def test_a_model_on_a_gpu_is_the_one_on_the_host(served: Any) -> None:
    with trims.open("m", place="gpu:0") as model, trims.open("m", place="host") as host:
        assert model.place == GPU and model.how == "loaded" and model.digest == host.digest
        for name in WEIGHTS:
            assert model[name].get().tobytes() == host[name].tobytes() == WEIGHTS[name].tobytes()
        assert model.manifest == host.manifest and dict(model.files) == dict(host.files) and model.graph == host.graph
        with trims.open("m", place="gpu") as again:
            assert again.how == "hit" and again.place == GPU


def test_the_last_view_ends_the_lease_and_an_eviction_then_frees_the_gpu(served: Any) -> None:
    model = trims.open("m", place="gpu:0")
    view = model["w"]
    model.close()
    until(served, [(GPU, 1)])
    with pytest.raises(InUse):
        served.request("evict", ref="m", place=GPU)
    assert view.get().tobytes() == WEIGHTS["w"].tobytes()
    del view
    until(served, [(GPU, 0)])
    served.request("evict", ref="m", place=GPU)
    until(served, [])
    until_freed(served)


def test_a_doomed_model_stays_readable_and_goes_with_its_last_user(served: Any) -> None:
    model = trims.open("m", place="gpu:0")
    served.request("evict", ref="m", place=GPU, force=True)
    assert model["w"].get().tobytes() == WEIGHTS["w"].tobytes()
    model.close()
    until(served, [])
    until_freed(served)


def test_a_killed_client_leaves_nothing(served: Any) -> None:
    code = (
        "import sys, trims\n"
        "model = trims.open('m', place='gpu:0')\n"
        "print(model['b'].get().nbytes, flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"32\n"
        assert leases(served) == [(GPU, 1)]
        child.send_signal(signal.SIGKILL)
    until(served, [(GPU, 0)])


def test_weights_outlive_their_manager(served: Any) -> None:
    with trims.open("m", place="gpu:0") as model:
        served.kill()
        assert model["w"].get().tobytes() == WEIGHTS["w"].tobytes()


def test_what_is_in_the_way_is_said(served: Any) -> None:
    import_model(open_store(str(served.runtime.store)), sources.source({"w": sources.numbers(3, 300 << 18)}), "big")
    with pytest.raises((NoRoom, DeviceLost)):
        trims.open("big", place="gpu:0", timeout=5)
    with pytest.raises(DeviceLost, match="no GPU 2"):
        trims.open("m", place="gpu:2")
