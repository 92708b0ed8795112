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

from trims.devices import drivers
from trims.devices.driver import Driver
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


def watch() -> tuple[Driver, str]:
    """The driver, of which nothing is asked that opens a context, and the GPU's UUID."""
    driver = drivers.find()
    return driver, driver.gpus()[0].uuid


def used() -> int:
    driver, uuid = watch()
    return driver.usage(uuid).used


def place() -> str:
    return gpu_place(watch()[1])


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


def worker(manager: Any) -> int:
    return int(manager.request("status")[0]["gpus"][place()]["worker"] or 0)


def test_a_start_opens_no_context_and_takes_no_memory(managers: Callable[..., Any]) -> None:
    before = used()
    manager = managers(gpu_devices="0")
    assert place() in manager.started["budgets"]
    assert abs(used() - before) <= SLACK
    manager.stop()


def test_wherever_it_is_loaded_from_it_is_the_same(served: Any) -> None:
    import hashlib

    expected = hashlib.sha256(WEIGHTS["w"].tobytes()).hexdigest()
    for source in ("disk", "host", "registered host"):
        if source == "host":
            served.request("warm", ref="m", place="host")
        with holding() as client:
            assert digest(client) == expected, source
        assert until(lambda: served.request("wait", ref="m", place=place(), condition="idle")[0]["held"])
        served.request("evict", ref="m", place=place())


def test_evicted_memory_is_really_free(served: Any) -> None:
    served.request("warm", ref="m", place="gpu")
    there = used()
    (item,) = served.request("evict", ref="m", place="gpu")
    assert item["outcome"] == "evicted"
    assert until(lambda: used() <= there - item["nbytes"] + SLACK)


def test_a_killed_clients_lease_and_memory_are_gone_and_others_go_on(served: Any) -> None:
    with holding() as stays:
        before, level = digest(stays), used()
        with holding() as client:
            client.kill()
            client.wait()
        assert until(lambda: used() <= level + SLACK)
        assert digest(stays) == before
        stays.kill()
        stays.wait()
    assert served.request("wait", ref="m", place=place(), condition="idle")[0]["held"]


def test_a_killed_worker_costs_its_load_alone(served: Any) -> None:
    with holding() as stays:
        before, first = digest(stays), worker(served)
        os.kill(first, signal.SIGKILL)
        assert until(lambda: worker(served) != first or not leaks.wait_ended({first}, 0))
        import_model(open_store(str(served.runtime.store)), sources.source({"w": sources.numbers(9, 1 << 20)}), "n")
        for attempt in range(2):  # the order that finds it dead may be the one that fails
            try:
                served.request("warm", ref="n", place=place())
                break
            except TrimsError:
                assert attempt == 0
        assert worker(served) != first and digest(stays) == before


def test_clients_of_a_killed_manager_go_on_and_the_next_one_serves_the_same(
    served: Any, managers: Callable[..., Any]
) -> None:
    start = used()
    with holding() as one:
        before, first = digest(one), worker(served)
        served.kill()
        assert not leaks.wait_ended({first}, leaks.GRACE)
        assert digest(one) == before
        managers(gpu_devices="0", budget_host="512MiB")
        with holding() as two:
            assert digest(two) == digest(one) == before
    assert used() > start  # the second manager keeps it


def test_a_doomed_models_memory_goes_with_its_last_client(served: Any) -> None:
    with holding() as client:
        before, there = digest(client), used()
        (item,) = served.request("evict", ref="m", place=place(), force=True)
        assert item["outcome"] == "doomed" and digest(client) == before
        assert used() >= there - SLACK
    assert until(lambda: used() <= there - item["nbytes"] + SLACK)
