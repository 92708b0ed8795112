"""A manager with a real GPU: no context of its own, loads from everywhere, kills of each process, memory set free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from helpers import capabilities, leaks, sources
from helpers.driver_peer import Peer

from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.errors import TrimsError
from trims.places import gpu_place

pytestmark = [pytest.mark.gpu, capabilities.needs_gpu, pytest.mark.timeout(300)]

MIB = 1 << 20
SLACK = 8 * MIB  # bytes that a GPU's memory may differ by when nothing of ours does
SOON = 30.0
WEIGHTS = {"w": sources.numbers(1, 48, 512, 1024), "b": sources.numbers(2, 8)}  # 96 MiB: a fault of a slab shows
HOLDER = """
import sys, hashlib, trims
model = trims.open(sys.argv[1], place="gpu:0")
for line in sys.stdin:
    print(hashlib.sha256(model["w"].get().tobytes()).hexdigest(), flush=True)
"""


@pytest.fixture
def served(managers: Callable[..., Any]) -> Any:
    """A manager with GPU 0 and 512 MiB of the host, and the model `m` in its store."""
    manager = managers(gpu_devices="0", budget_host="512MiB")
    import_model(open_store(str(manager.runtime.store)), sources.source(WEIGHTS), "m")
    return manager


class Gpu:
    """GPU 0, as a process of its own measures it: this one never loads the driver. place: `gpu:<UUID>`."""

    def __init__(self, peer: Peer) -> None:
        self._peer, self._uuid = peer, peer.gpus()[0].uuid
        self.place = gpu_place(self._uuid)

    def used(self) -> int:
        """Bytes that anybody has of it."""
        return int(self._peer.usage(self._uuid).used)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with Peer({}) as peer:
        yield Gpu(peer)


def until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SOON
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True


@contextmanager
def holding(ref: str = "m") -> Iterator[subprocess.Popen[str]]:
    """A process with the model open on the GPU; it answers a line with the digest of its weights."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", HOLDER, ref], text=True, **pipes) as process:
        try:
            digest(process)
            yield process
        finally:
            process.kill()


def digest(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    found = process.stdout.readline().strip()
    assert found, process.poll()
    return found


def worker(manager: Any, gpu: Gpu) -> int:
    return int(manager.request("status")[0]["gpus"][gpu.place]["worker"] or 0)


def test_a_start_opens_no_context_and_takes_no_memory(managers: Callable[..., Any], gpu: Gpu) -> None:
    before = gpu.used()
    manager = managers(gpu_devices="0")
    assert gpu.place in manager.started["budgets"]
    assert abs(gpu.used() - before) <= SLACK
    manager.stop()


def test_wherever_it_is_loaded_from_it_is_the_same(served: Any, gpu: Gpu) -> None:
    import hashlib

    expected = hashlib.sha256(WEIGHTS["w"].tobytes()).hexdigest()
    for source in ("disk", "host", "registered host"):
        if source == "host":
            served.request("warm", ref="m", place="host")
        with holding() as client:
            assert digest(client) == expected, source
        assert until(lambda: served.request("wait", ref="m", place=gpu.place, condition="idle")[0]["held"])
        served.request("evict", ref="m", place=gpu.place)


def test_evicted_memory_is_really_free(served: Any, gpu: Gpu) -> None:
    served.request("warm", ref="m", place="gpu")
    there = gpu.used()
    (item,) = served.request("evict", ref="m", place="gpu")
    assert item["outcome"] == "evicted"
    assert until(lambda: gpu.used() <= there - item["nbytes"] + SLACK)


def test_a_killed_clients_lease_and_memory_are_gone_and_others_go_on(served: Any, gpu: Gpu) -> None:
    with holding() as stays:
        before, level = digest(stays), gpu.used()
        with holding() as client:
            client.kill()
            client.wait()
        assert until(lambda: gpu.used() <= level + SLACK)
        assert digest(stays) == before
        stays.kill()
        stays.wait()
    assert served.request("wait", ref="m", place=gpu.place, condition="idle")[0]["held"]


def test_a_killed_worker_costs_its_load_alone(served: Any, gpu: Gpu) -> None:
    with holding() as stays:
        before, first = digest(stays), worker(served, gpu)
        os.kill(first, signal.SIGKILL)
        assert until(lambda: worker(served, gpu) != first or not leaks.wait_ended({first}, 0))
        import_model(open_store(str(served.runtime.store)), sources.source({"w": sources.numbers(9, 1 << 20)}), "n")
        for attempt in range(2):  # the order that finds it dead may be the one that fails
            try:
                served.request("warm", ref="n", place=gpu.place)
                break
            except TrimsError:
                assert attempt == 0
        assert worker(served, gpu) != first and digest(stays) == before


def test_clients_of_a_killed_manager_go_on_and_the_next_one_serves_the_same(
    served: Any, managers: Callable[..., Any], gpu: Gpu
) -> None:
    start = gpu.used()
    with holding() as one:
        before, first = digest(one), worker(served, gpu)
        served.kill()
        assert not leaks.wait_ended({first}, leaks.GRACE)
        assert digest(one) == before
        managers(gpu_devices="0", budget_host="512MiB")
        with holding() as two:
            assert digest(two) == digest(one) == before
    assert gpu.used() > start  # the second manager keeps it


def test_a_doomed_models_memory_goes_with_its_last_client(served: Any, gpu: Gpu) -> None:
    with holding() as client:
        before, there = digest(client), gpu.used()
        (item,) = served.request("evict", ref="m", place=gpu.place, force=True)
        assert item["outcome"] == "doomed" and digest(client) == before
        assert gpu.used() >= there - SLACK
    assert until(lambda: gpu.used() <= there - item["nbytes"] + SLACK)
