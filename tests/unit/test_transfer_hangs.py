"""A GPU's worker that hangs in its driver: what is not wanted any more is given up, and nobody waits for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import sources
from helpers.gpus import MIB, Gpus, entered

from trims.devices import simulated
from trims.devices.gpu import GpuDevice
from trims.devices.host import HostDevice
from trims.devices.simulated import fail
from trims.disk.ingest import import_model
from trims.disk.reader import Cancelled
from trims.disk.sidecar import read_sidecar
from trims.disk.store import create_store
from trims.manifest import table_bytes
from trims.transfer import gpu_link
from trims.transfer.base import Source
from trims.transfer.gpu_keeper import GpuKeeper
from trims.transfer.gpu_link import GpuLink
from trims.transfer.to_gpu import GpuFiller
from trims.transfer.to_host import HostFiller


def silent(_: int) -> None:
    """No progress is wanted."""


def wanted() -> bool:
    return False


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_link, "_ENDING", 0.1)
    monkeypatch.setattr(gpu_link, "_DROPPING", 0.1)


@pytest.fixture
def source(store_root: Path) -> Source:
    store = create_store(str(store_root))
    made = sources.source({"w": sources.numbers(1, 3 * MIB // 64, 16)})
    digest = import_model(store, made, "m:latest").entry.digest
    path = store.paths.sidecar(digest)
    sidecar = read_sidecar(path)
    return Source(store.paths.container(digest), path, sidecar, table_bytes(sidecar.manifest))


@pytest.fixture
def device(gpus: Gpus) -> Iterator[GpuDevice]:
    made = GpuDevice(gpus.driver, gpus.all[0])
    yield made
    made.close()
    assert gpus.used() == 0


@pytest.fixture
def filler(gpus: Gpus) -> Iterator[GpuFiller]:
    made = GpuFiller(GpuLink(gpus.all[0].uuid))
    yield made
    made.close()


@pytest.fixture
def hang(home: Path) -> Iterator[Callable[[Gpus, str], Path]]:
    """Have a call of the driver hang, in every process; gives the FIFO that holds it."""

    def hang(gpus: Gpus, call: str) -> Path:
        fail(gpus.directory, hold={call: str(gate)})
        return gate

    gate = home / "gate"
    os.mkfifo(gate)
    return hang


class Standing:
    """Called, whether a worker stands at the gate, or has; it stays there until `close`."""

    def __init__(self, gate: Path) -> None:
        self._gate, self._fd = gate, -1

    def __call__(self) -> bool:
        if self._fd < 0:
            try:
                self._fd = os.open(self._gate, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:
                return False
        return True

    def close(self) -> None:
        os.close(self._fd)


@pytest.mark.parametrize("call", ["open", "pin", "map", "copy_in", "wait"])
def test_an_order_that_is_not_wanted_any_more_ends_with_its_worker(gpus, device, filler, source, hang, call) -> None:
    standing = Standing(hang(gpus, call))
    region = device.allocate("m", source.span)
    with pytest.raises(Cancelled):
        filler.fill(region, source, silent, standing)
    standing.close()
    assert filler.link.pid is None and gpus.used() == region.nbytes
    fail(gpus.directory)
    filler.fill(region, source, silent, wanted)


def test_closing_a_link_ends_the_order_in_hand(gpus, device, filler, source, hang) -> None:
    gate, outcome = hang(gpus, "copy_in"), []

    def load() -> None:
        try:
            filler.fill(device.allocate("m", source.span), source, silent, wanted)
        except Cancelled as error:
            outcome.append(error)

    loading = threading.Thread(target=load)
    loading.start()
    fd = entered(gate)
    filler.close()
    loading.join()
    os.close(fd)
    assert outcome and filler.link.pid is None


def test_a_host_region_that_is_not_dropped_goes_with_the_worker(gpus, device, filler, source, hang) -> None:
    host = HostDevice()
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    gate = hang(gpus, "register")
    filler.fill(device.allocate("m", source.span), replace(source, region=resident), silent, wanted)
    fd = entered(gate)
    filler.forget(resident)
    os.close(fd)
    host.close()
    fail(gpus.directory)
    filler.fill(device.allocate("m", source.span), source, silent, wanted)


@pytest.fixture
def keeper(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Gpus, GpuKeeper]]:
    """Of a GPU without descriptors, with one allocation."""
    gpus = Gpus(simulated.make(str(home / "others"), gpus=1, nbytes=64 * MIB, shares=False))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", gpus.directory)
    keeper = GpuKeeper(gpus.all[0].uuid)
    keeper.allocate(2 * MIB)
    yield gpus, keeper
    keeper.close()
    assert gpus.used() == 0


@pytest.mark.parametrize("call", ["allocate", "free_allocation"])
def test_closing_a_link_ends_a_worker_that_owns_memory(keeper, hang, call) -> None:
    gpus, link = keeper
    gate, outcome = hang(gpus, call), []

    def ask() -> None:
        try:
            link.free(1) if call == "free_allocation" else link.allocate(2 * MIB)
        except Cancelled as error:
            outcome.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    fd = entered(gate)
    link.close()
    asking.join()
    os.close(fd)
    assert link.pid is None and bool(outcome) == (call == "allocate")


def test_what_a_worker_owns_is_worth_waiting_for(keeper, source, hang) -> None:
    gpus, link = keeper
    number, _ = link.allocate(4 * MIB)
    standing, looks = Standing(hang(gpus, "copy_in")), []

    class Region:
        own, slabs, fds = number, (4 * MIB,), ()

    def unwanted() -> bool:
        looks.append(standing())
        return looks[-1]

    order = GpuFiller(link)._work(Region(), source)[0]  # type: ignore[arg-type]
    ended = threading.Event()

    def work() -> None:
        with pytest.raises(Cancelled):
            link.work(order, [], silent, unwanted)
        ended.set()

    working = threading.Thread(target=work)
    working.start()
    while not (looks and looks[-1]):
        pass
    assert not ended.wait(0.3)
    fail(gpus.directory)
    standing.close()
    working.join()
    assert link.owns(1) and link.owns(number)


HASTY = """
import sys
from trims.transfer import gpu_worker
gpu_worker.ENDING = 0.1
sys.exit(gpu_worker.main(sys.argv[1:]))
"""
"""A worker whose patience is short."""


def test_a_worker_that_hangs_does_not_outlive_its_manager(gpus, hang) -> None:
    gate = hang(gpus, "open")
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
    theirs = [pair[1].fileno() for pair in pairs]
    words = [sys.executable, "-c", HASTY, gpus.all[0].uuid, *map(str, theirs)]
    worker = subprocess.Popen(words, pass_fds=theirs)
    for _, end in pairs:
        end.close()
    fd = entered(gate)
    for end, _ in pairs:
        end.close()  # as when a manager is killed
    assert worker.wait(20) == 1
    os.close(fd)
