"""A manager whose GPUs cannot share their memory by descriptors, and may share it by legacy CUDA IPC."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import leaks
from helpers.gpus import MIB, Gpus
from helpers.raw import Raw, until

import trims
from trims.client import connections
from trims.devices import simulated
from trims.devices.simulated import fail
from trims.errors import DeviceLost, InUse, NoRoom
from trims.paths import RuntimePaths
from trims.wire.messages import Attach, Attached, Evict, Pin, Refused, Result, Status, WaitFor, Warm


@pytest.fixture(autouse=True)
def connections_end() -> Iterator[None]:
    yield
    gc.collect()
    connections.close_idle()


@pytest.fixture
def gpus(home: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Two GPUs of 64 MiB without descriptors."""
    directory = simulated.make(str(home / "gpus"), gpus=2, nbytes=64 * MIB, shares=False)
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", directory)
    return Gpus(directory)


@pytest.fixture
def manager(gpus: Gpus, managers: Callable[..., Any]) -> Any:
    return managers(gpu_sharing="ipc")


@pytest.fixture
def client(manager: Any) -> Iterator[Raw]:
    with Raw(manager.runtime.socket) as client:
        yield client


def used(client: Raw, place: str) -> int:
    return int(client.ask(Status).items[0]["budgets"][place]["used"])


def worker(client: Raw, place: str) -> int:
    pid = client.ask(Status).items[0]["gpus"][place]["worker"]
    assert pid
    return int(pid)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def log(manager: Any) -> str:
    return Path(RuntimePaths(str(manager.runtime.socket)).log).read_text()


def imported(ref: str) -> dict[str, bytes]:
    with trims.open(ref, place="disk") as model:
        return {name: array.tobytes() for name, array in model.tensors().items()}


def tensors(model: trims.Model) -> dict[str, bytes]:
    return {name: array.get().tobytes() for name, array in model.tensors().items()}


# ---- what is there


@pytest.mark.parametrize("source", ["disk", "host"])
def test_a_model_is_opened_in_another_process(put, gpus, manager, client, source) -> None:
    put("m", 5 * MIB)
    if source == "host":
        client.ask(Warm, ref="m", place="host")
    with trims.open("m", place=gpus.place(1)) as model:
        assert (model.place, model.how) == (gpus.place(1), "loaded")
        assert tensors(model) == imported("m")
    with trims.open("m", place=gpus.place(1)) as model:
        assert model.how == "hit" and tensors(model) == imported("m")


def test_it_comes_as_one_handle_and_the_tail_alone_as_a_descriptor(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    answer = client.attach("m", place="gpu")
    assert answer.slabs == [6 * MIB] and answer.map_nbytes == 6 * MIB
    (handle,) = answer.ipc
    assert len(bytes.fromhex(handle)) == 64 and len(client.fds) == answer.descriptors == 1
    assert used(client, gpus.place(0)) == 6 * MIB


def test_no_gpu_is_filled_from_another_ones_memory(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    client.ask(Warm, ref="m", place=gpus.place(0))
    with trims.open("m", place=gpus.place(1)) as model:
        assert tensors(model) == imported("m")


def test_opened_twice_in_a_process_it_is_in_one_place(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    one, two = (trims.open("m", place=gpus.place(0)) for _ in range(2))
    address = one["w"].address
    assert two["w"].address == address
    one.close()
    gc.collect()
    assert tensors(two) == imported("m")
    two.close()
    assert client.ask(WaitFor, ref="m", place="gpu", condition="idle").items[0]["held"]


def test_what_an_operator_should_know_is_told(gpus, manager, client) -> None:
    notes = client.ask(Status).items[0]["gpus"][gpus.place(0)]["notes"]
    assert "legacy IPC: read-write for every client" in notes
    assert "legacy IPC: read-write for every client" in log(manager)


# ---- how long


def test_leases_and_evictions_free_memory(put, gpus, manager, client) -> None:
    put("m", 9 * MIB)
    model = trims.open("m", place="gpu:0")
    refused = client.ask(Evict, ref="m", place="gpu")
    assert isinstance(refused, Refused) and refused.code == InUse.code
    model.close()
    del model
    assert client.ask(WaitFor, ref="m", place="gpu", condition="idle").items[0]["held"]
    before = gpus.used()
    (item,) = client.ask(Evict, ref="m", place="gpu").items
    assert (item["outcome"], item["nbytes"]) == ("evicted", 10 * MIB)
    assert before - gpus.used() == 10 * MIB


def test_a_model_makes_room_for_another(put, gpus, manager, client) -> None:
    for ref in ("a", "b", "c"):
        put(ref, 24 * MIB)
        with trims.open(ref, place="gpu:0") as model:
            assert tensors(model) == imported(ref)
    assert used(client, gpus.place(0)) == 24 * MIB + 2 * MIB


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_all_memory_goes_with_the_manager(put, gpus, manager, client, end) -> None:
    put("m", 5 * MIB)
    client.ask(Warm, ref="m", place="gpu")
    pid = worker(client, gpus.place(0))
    getattr(manager, end)()
    assert not leaks.wait_ended({pid}, leaks.GRACE)
    assert gpus.used() == 0


# ---- a worker that dies


def test_what_clients_of_a_killed_manager_had_counts_no_more(put, gpus, managers) -> None:
    first = managers(gpu_sharing="ipc")
    put("m", 5 * MIB)
    model = trims.open("m", place=gpus.place(0))
    with Raw(first.runtime.socket) as client:
        owner = worker(client, gpus.place(0))
    first.kill()
    assert not leaks.wait_ended({owner}, leaks.GRACE)
    with Raw(managers(gpu_sharing="ipc").runtime.socket) as client:
        assert used(client, gpus.place(0)) == 0
    model.close()


def test_when_the_worker_dies_its_models_are_lost_and_the_next_attach_loads_again(put, gpus, manager, client) -> None:
    for ref in ("a", "b"):
        put(ref, 5 * MIB)
        client.ask(Warm, ref=ref, place=gpus.place(0))
    client.ask(Warm, ref="a", place=gpus.place(1))
    dead = worker(client, gpus.place(0))
    kill(dead)
    assert client.ask(WaitFor, ref="a", place=gpus.place(0), condition="gone").items[0]["held"]
    assert client.ask(WaitFor, ref="b", place=gpus.place(0), condition="gone").items[0]["held"]
    assert used(client, gpus.place(0)) == 0 == gpus.used(0)
    assert log(manager).count("2 models are lost there; what clients have open of them is undefined") == 1
    with trims.open("a", place=gpus.place(0)) as model:
        assert model.how == "loaded" and tensors(model) == imported("a")
    assert worker(client, gpus.place(0)) != dead
    with trims.open("a", place=gpus.place(1)) as model:
        assert model.how == "hit"


def test_what_clients_had_open_goes_with_their_leases(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    model = trims.open("m", place=gpus.place(0))
    kill(worker(client, gpus.place(0)))
    until(lambda: "models are lost" in log(manager), client)
    with pytest.raises(DeviceLost):
        tensors(model)
    refused = client.ask(Attach, ref="m", place=gpus.place(0), timeout=0.1)
    assert isinstance(refused, Refused) and refused.code == InUse.code
    model.close()
    del model
    assert client.ask(WaitFor, ref="m", place=gpus.place(0), condition="gone").items[0]["held"]
    with trims.open("m", place=gpus.place(0)) as model:
        assert tensors(model) == imported("m")


def test_a_pinned_model_is_loaded_again(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    client.ask(Pin, ref="m", place=gpus.place(0), owner="ann")
    dead = worker(client, gpus.place(0))
    kill(dead)
    until(lambda: client.ask(Status).items[0]["gpus"][gpus.place(0)]["worker"] not in (None, dead), client)
    assert client.ask(WaitFor, ref="m", place=gpus.place(0), condition="warm").items[0]["held"]
    with trims.open("m", place=gpus.place(0)) as model:
        assert tensors(model) == imported("m")


def test_a_gpu_that_fails_takes_its_models_along_and_serves_when_it_is_back(put, gpus, manager, client) -> None:
    put("a", 5 * MIB)
    put("b", 5 * MIB)
    client.ask(Warm, ref="a", place=gpus.place(0))
    fail(gpus.directory, lost=[gpus.all[0].uuid])
    refused = client.ask(Attach, ref="b", place=gpus.place(0))
    assert isinstance(refused, Refused) and refused.code == DeviceLost.code
    assert client.ask(WaitFor, ref="a", place=gpus.place(0), condition="gone").items[0]["held"]
    fail(gpus.directory)
    with trims.open("a", place=gpus.place(0)) as model:
        assert tensors(model) == imported("a")


@pytest.mark.parametrize("failure", [{"allocate": [1]}, {"ipc_handle": [1]}, {"copy_in": [1]}, {"die": "copy_in"}])
def test_a_failed_load_leaves_nothing_and_the_next_one_goes_well(put, gpus, manager, client, failure) -> None:
    put("m", 5 * MIB)
    fail(gpus.directory, **failure)
    refused = client.ask(Attach, ref="m", place=gpus.place(0))
    assert isinstance(refused, Refused) and refused.code in (NoRoom.code, DeviceLost.code)
    assert used(client, gpus.place(0)) == 0
    fail(gpus.directory)
    with trims.open("m", place=gpus.place(0)) as model:
        assert tensors(model) == imported("m")


def test_a_client_that_cannot_open_the_memory_is_told_and_keeps_no_lease(put, gpus, manager, client) -> None:
    put("m", 5 * MIB)
    client.ask(Warm, ref="m", place=gpus.place(0))
    fail(gpus.directory, ipc_open=list(range(1, 99)))
    with pytest.raises(DeviceLost, match=r"legacy CUDA IPC.*PID and IPC namespaces"):
        trims.open("m", place=gpus.place(0))
    fail(gpus.directory)
    assert client.ask(WaitFor, ref="m", place=gpus.place(0), condition="idle").items[0]["held"]
    assert isinstance(client.ask(Evict, ref="m", place=gpus.place(0)), Result)


# ---- only where it is wanted


def test_without_the_setting_such_a_gpu_is_refused_by_name(gpus, managers) -> None:
    with pytest.raises(DeviceLost, match=r"descriptors \(set gpu.sharing to ipc"):
        managers(gpu_devices="0")


def test_without_the_setting_such_gpus_are_left_out_with_a_hint(gpus, managers) -> None:
    manager = managers()
    assert list(manager.started["budgets"]) == ["host"]
    assert log(manager).count("set gpu.sharing to ipc") == 2


def test_a_gpu_with_descriptors_is_shared_by_them_all_the_same(home, put, managers, monkeypatch) -> None:
    ordinary = Gpus(simulated.make(str(home / "ordinary"), gpus=1, nbytes=64 * MIB))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", ordinary.directory)
    put("m", 5 * MIB)
    with Raw(managers(gpu_sharing="ipc").runtime.socket) as client:
        answer = client.attach("m", place="gpu")
        assert isinstance(answer, Attached) and not answer.ipc and answer.descriptors == 2
