"""Regions that a worker owns, for legacy CUDA IPC: filled, opened by others, freed; and gone with the worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import leaks, sources
from helpers.gpus import MIB, Gpus

from trims.devices import simulated
from trims.devices.host import HostDevice
from trims.devices.ipc import IpcDevice, IpcRegion
from trims.devices.simulated import fail
from trims.devices.simulated_gpus import CONTEXT
from trims.disk.ingest import import_model
from trims.disk.reader import Cancelled
from trims.disk.sidecar import read_sidecar
from trims.disk.store import create_store
from trims.errors import DeviceLost, NoRoom
from trims.manifest import table_bytes
from trims.transfer.base import Source
from trims.transfer.gpu_keeper import GpuKeeper
from trims.transfer.gpu_words import Work
from trims.transfer.to_gpu import GpuFiller
from trims.transfer.to_host import HostFiller


def silent(_: int) -> None:
    """No progress is wanted."""


def wanted() -> bool:
    return False


@pytest.fixture
def gpus(home: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    directory = simulated.make(str(home / "gpus"), gpus=1, nbytes=64 * MIB, granularity=MIB // 16, shares=False)
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", directory)
    return Gpus(directory)


@pytest.fixture
def source(store_root: Path) -> Source:
    store = create_store(str(store_root))
    tensors = {"w": sources.numbers(1, 5 * MIB // 4 // 16, 16), "b": sources.numbers(2, 8)}
    digest = import_model(store, sources.source(tensors, files={"labels.txt": b"cat\n"}), "m:latest").entry.digest
    path = store.paths.sidecar(digest)
    sidecar = read_sidecar(path)
    return Source(store.paths.container(digest), path, sidecar, table_bytes(sidecar.manifest))


@pytest.fixture
def keeper(gpus: Gpus) -> Iterator[GpuKeeper]:
    made = GpuKeeper(gpus.all[0].uuid)
    yield made
    made.close()
    assert gpus.used() == 0


@pytest.fixture
def filler(keeper: GpuKeeper) -> GpuFiller:
    return GpuFiller(keeper)


@pytest.fixture
def device(gpus: Gpus, keeper: GpuKeeper) -> Iterator[IpcDevice]:
    made = IpcDevice(gpus.driver, gpus.all[0], keeper)
    yield made
    made.close()
    assert (made.nbytes, made.statistics().regions) == (0, 0)


def allocate(device: IpcDevice, nbytes: int = 5 * MIB) -> IpcRegion:
    region = device.allocate("m", nbytes)
    assert isinstance(region, IpcRegion)
    return region


def read(gpus: Gpus, region: IpcRegion, nbytes: int) -> bytes:
    """The first bytes of a region, as a client has them."""
    driver, out = gpus.driver, np.zeros(nbytes, np.uint8)
    driver.open(0)
    try:
        address = driver.ipc_open(0, bytes.fromhex(region.ipc[0]))
        stream = driver.stream(0)
        driver.copy_out(0, out.ctypes.data, address, nbytes, stream)
        driver.end_stream(0, stream)
        driver.ipc_close(0, address)
    finally:
        driver.close(0)
    return out.tobytes()


def span(source: Source) -> bytes:
    host = HostDevice()
    region = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(region, source, silent, wanted)
    data = os.pread(region.export(), source.span, 0)
    host.close()
    return data


def kill(keeper: GpuKeeper) -> None:
    pid = keeper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    leaks.wait_ended({pid}, leaks.GRACE)


def test_a_region_is_filled_and_opened_by_others(gpus, device, filler, source) -> None:
    region = allocate(device, source.span)
    tail = filler.fill(region, source, silent, wanted)
    assert read(gpus, region, source.span) == span(source)
    assert os.pread(region.export(), 1 << 20, 0)[: source.span - tail] == span(source)[tail:]
    assert region.descriptors == (region.export(),)


def test_from_the_host_it_is_the_same(gpus, device, filler, source) -> None:
    host = HostDevice()
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    region = allocate(device, source.span)
    filler.fill(region, replace(source, region=resident), silent, wanted)
    assert read(gpus, region, source.span) == span(source)
    region.close()
    region = allocate(device, source.span)
    inode = os.fstat(resident.export()).st_ino
    order = Work(
        list(region.slabs), source.container, source.sidecar_path, host=(resident.nbytes, inode), own=region.own
    )
    assert filler.link.work(order, [resident.export()], silent, wanted).way in ("host", "registered host memory")
    assert read(gpus, region, source.span) == span(source)
    filler.forget(resident)
    host.close()


def test_a_region_is_whole_blocks_of_its_own(gpus, device) -> None:
    one, two = allocate(device, 1), allocate(device, 3 * MIB)
    assert (one.slabs, two.slabs) == ((2 * MIB,), (4 * MIB,))
    assert device.takes(1, 100) == 2 * MIB and device.takes(2 * MIB + 1, 0) == 4 * MIB
    assert one.ipc != two.ipc and one.own != two.own
    assert device.nbytes == device.statistics().region_nbytes == 6 * MIB
    before = gpus.used()
    one.close()
    one.close()
    assert before - gpus.used() == 2 * MIB


def test_the_worker_stays_while_it_owns_anything(gpus, device, keeper) -> None:
    one, two = allocate(device), allocate(device)
    for region in (one, two):
        keeper.end_if_idle(0)
        assert keeper.pid is not None and not region.lost
        region.close()
    assert gpus.used() == CONTEXT
    keeper.end_if_idle(3600)
    assert keeper.pid is not None
    keeper.end_if_idle(0)
    assert keeper.pid is None and gpus.used() == 0


def test_regions_are_lost_with_the_worker_and_the_next_is_another_ones(gpus, device, filler, keeper, source) -> None:
    told: list[tuple[bool, bool]] = []
    lost = allocate(device, source.span)
    keeper.running = lambda running: told.append((running, lost.lost))
    filler.fill(lost, source, silent, wanted)
    kill(keeper)
    assert not lost.lost
    keeper.end_if_idle(3600)
    assert lost.lost and told == [(False, True)] and gpus.used() == 0
    region = allocate(device, source.span)
    lost.close()
    filler.fill(region, source, silent, wanted)
    assert read(gpus, region, source.span) == span(source)
    assert device.nbytes == region.nbytes


def test_a_death_that_nobody_saw_is_found_by_the_next_call(gpus, device, keeper) -> None:
    lost = allocate(device)
    kill(keeper)
    region = allocate(device)
    assert lost.lost and not region.lost
    kill(keeper)
    region.close()
    assert keeper.pid is None and device.nbytes == lost.nbytes


def test_what_was_lost_is_not_filled(gpus, device, filler, keeper, source) -> None:
    region = allocate(device, source.span)
    kill(keeper)
    with pytest.raises(DeviceLost, match="has ended"):
        filler.fill(region, source, silent, wanted)
    assert region.lost


@pytest.mark.parametrize("call", ["allocate", "ipc_handle", "open"])
def test_an_allocation_that_fails_leaves_nothing(gpus, device, keeper, call) -> None:
    fail(gpus.directory, **{call: [1]})
    with pytest.raises((NoRoom, DeviceLost)):
        allocate(device)
    fail(gpus.directory)
    assert device.nbytes == 0 and gpus.used() in (0, CONTEXT)
    assert not allocate(device).lost


def test_more_than_there_is_gives_no_room(device) -> None:
    with pytest.raises(NoRoom):
        device.allocate("m", 65 * MIB)
    assert device.nbytes == 0


def test_a_context_that_failed_takes_all_along(gpus, device, keeper) -> None:
    region = allocate(device)
    fail(gpus.directory, lost=[gpus.all[0].uuid])
    with pytest.raises(DeviceLost, match="is lost"):
        allocate(device)
    fail(gpus.directory)
    assert keeper.pid is None and region.lost
    assert not allocate(device).lost


def test_a_host_region_that_cannot_be_dropped_costs_no_memory(gpus, device, filler, keeper, source) -> None:
    host = HostDevice()
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    region = allocate(device, source.span)
    work = (list(region.slabs), source.container, source.sidecar_path)
    order = Work(*work, host=(resident.nbytes, os.fstat(resident.export()).st_ino), own=region.own)
    while keeper.work(order, [resident.export()], silent, wanted).way == "host":
        pass  # it is registered behind the scenes
    fail(gpus.directory, unregister=[1])
    keeper.drop(os.fstat(resident.export()).st_ino)
    assert not region.lost and read(gpus, region, source.span) == span(source)
    host.close()


def test_a_closed_link_owns_nothing_any_more(device, keeper) -> None:
    region = allocate(device)
    keeper.close()
    assert region.lost
    with pytest.raises(Cancelled):
        allocate(device)
