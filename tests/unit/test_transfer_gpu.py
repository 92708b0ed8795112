"""Filling regions of a GPU by a real worker process: from the disk, the host and another GPU; what can go wrong."""

from __future__ import annotations

import array
import fcntl
import os
import signal
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import leaks, sources
from helpers.gpus import MIB, SLAB, Gpus, entered

from trims.devices import simulated
from trims.devices.gpu import GpuDevice, GpuRegion
from trims.devices.host import HostDevice
from trims.devices.simulated import fail
from trims.disk.ingest import import_model
from trims.disk.reader import Cancelled
from trims.disk.sidecar import read_sidecar
from trims.disk.store import create_store
from trims.errors import Damaged, DeviceLost, NoRoom
from trims.linux import fdpass
from trims.manifest import parse_table, table_bytes
from trims.transfer.base import Source
from trims.transfer.gpu_link import GpuLink
from trims.transfer.gpu_words import Work
from trims.transfer.to_gpu import GpuFiller
from trims.transfer.to_host import HostFiller

NBYTES = 10 * MIB


def silent(_: int) -> None:
    """No progress is wanted."""


def wanted() -> bool:
    return False


@pytest.fixture
def source(request: pytest.FixtureRequest, store_root: Path) -> Source:
    """A model of three slabs with a graph and a file, in a store."""
    store = create_store(str(store_root), codec=getattr(request, "param", "none"))
    tensors = {
        "w": sources.numbers(1, NBYTES // 4 // 16, 16),
        "b": sources.numbers(2, 8),
        "none": sources.numbers(3, 0),
    }
    made = sources.source(tensors, graph=lambda offsets: b"a graph" * 1000, files={"labels.txt": b"cat\ndog\n"})
    digest = import_model(store, made, "m:latest").entry.digest
    path = store.paths.sidecar(digest)
    sidecar = read_sidecar(path)
    return Source(store.paths.container(digest), path, sidecar, table_bytes(sidecar.manifest))


@pytest.fixture
def devices(gpus: Gpus) -> Iterator[list[GpuDevice]]:
    made = [GpuDevice(gpus.driver, gpu, slab=SLAB) for gpu in gpus.all]
    yield made
    for device in made:
        device.close()
        assert (device.nbytes, device.statistics().regions) == (0, 0)


@pytest.fixture
def filler(gpus: Gpus) -> Iterator[GpuFiller]:
    """Of the first GPU."""
    made = GpuFiller(GpuLink(gpus.all[0].uuid))
    yield made
    made.close()


def span(source: Source) -> bytes:
    """What the region is to hold, read the ordinary way."""
    device = HostDevice()
    region = device.allocate("m", source.span + len(source.table))
    HostFiller().fill(region, source, silent, wanted)
    data = os.pread(region.export(), source.span, 0)
    device.close()
    return data


def fill(filler: GpuFiller, device: GpuDevice, source: Source) -> tuple[GpuRegion, int]:
    region = device.allocate("m", device.takes(source.span, len(source.table)))
    return region, filler.fill(region, source, silent, wanted)


@pytest.mark.parametrize("source", ["none", "zstd"], indirect=True)
def test_what_was_imported_is_on_the_gpu_and_its_tail_on_the_host(gpus, devices, filler, source) -> None:
    region, tail = fill(filler, devices[0], source)
    expected = span(source)
    assert region.slabs == (SLAB, SLAB, 4 * MIB) and region.nbytes == 12 * MIB
    assert gpus.read(region.fds, region.slabs, source.span) == expected
    assert region.descriptors == (region.export(), *region.fds)
    kept = os.pread(region.export(), 1 << 20, 0)
    assert kept[: source.span - tail] == expected[tail:]
    table = kept[source.span - tail : source.span - tail + len(source.table)]
    assert parse_table(table).manifest == source.sidecar.manifest
    graph = source.sidecar.manifest.layout.graph
    assert graph is not None and kept[graph[0] - tail :][: graph[1]] == b"a graph" * 1000


def test_progress_is_told_and_the_worker_serves_again(devices, filler, source) -> None:
    seen: list[int] = []
    region = devices[0].allocate("m", source.span)
    filler.fill(region, source, seen.append, wanted)
    first = filler.link.pid
    assert seen == sorted(seen) and all(0 < done <= source.span for done in seen)
    fill(filler, devices[0], source)
    assert filler.link.pid == first


def work(source: Source, region: GpuRegion, **more: object) -> Work:
    return Work(list(region.slabs), source.container, source.sidecar_path, **more)  # type: ignore[arg-type]


def test_a_host_region_is_copied_and_later_copied_from_where_it_is(gpus, devices, filler, source) -> None:
    host = HostDevice()
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    inode = os.fstat(resident.export()).st_ino
    ways = []
    while "registered host memory" not in ways:  # it is registered behind the scenes
        region = devices[0].allocate("m", source.span)
        order = work(source, region, host=(resident.nbytes, inode))
        ways.append(filler.link.work(order, [*region.fds, resident.export()], silent, wanted).way)
        assert gpus.read(region.fds, region.slabs, source.span) == span(source)
        region.close()
    assert set(ways[:-1]) == {"host"}
    filler.fill(region := devices[0].allocate("m", source.span), replace(source, region=resident), silent, wanted)
    assert gpus.read(region.fds, region.slabs, source.span) == span(source)
    assert _maps(filler, "memfd:trims") > 0
    filler.forget(resident)
    assert _maps(filler, "memfd:trims") == 0
    host.close()


def test_a_host_region_is_dropped_while_another_load_goes_on(gpus, devices, filler, source, home) -> None:
    host = HostDevice()
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    fill(filler, devices[0], replace(source, region=resident))[0].close()
    gate = home / "gate"
    os.mkfifo(gate)
    fail(gpus.directory, hold={"copy_in": str(gate)})
    loading = threading.Thread(target=lambda: fill(filler, devices[0], source))
    loading.start()
    fd = entered(gate)
    assert _maps(filler, "memfd:trims") > 0
    filler.forget(resident)  # comes back, though the load stands
    assert _maps(filler, "memfd:trims") == 0 and loading.is_alive()
    fail(gpus.directory)
    os.close(fd)
    loading.join()
    host.close()


def _maps(filler: GpuFiller, name: str) -> int:
    with open(f"/proc/{filler.link.pid}/maps") as file:
        return sum(name in line for line in file)


def test_a_gpu_that_cannot_register_copies_through_buffers(home, source, gpus, monkeypatch) -> None:
    other = Gpus(simulated.make(str(home / "others"), gpus=1, nbytes=64 * MIB, reads_registered=False))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", other.directory)
    device, host = GpuDevice(other.driver, other.all[0], slab=SLAB), HostDevice()
    filler = GpuFiller(GpuLink(other.all[0].uuid))
    resident = host.allocate("m", source.span + len(source.table))
    HostFiller().fill(resident, source, silent, wanted)
    for _ in range(3):
        region, _ = fill(filler, device, replace(source, region=resident))
        assert other.read(region.fds, region.slabs, source.span) == span(source)
        region.close()
    inode = os.fstat(resident.export()).st_ino
    region = device.allocate("m", source.span)
    order = work(source, region, host=(resident.nbytes, inode))
    assert filler.link.work(order, [*region.fds, resident.export()], silent, wanted).way == "host"
    filler.close()
    device.close()
    host.close()


def test_another_gpu_is_copied_from_where_it_is_reached(gpus, devices, filler, source) -> None:
    region, _ = fill(filler, devices[0], source)
    other = GpuFiller(GpuLink(gpus.all[1].uuid))
    copy = devices[1].allocate("m", source.span)
    order = work(source, copy, peer=gpus.all[0].uuid, peer_slabs=list(region.slabs))
    assert other.link.work(order, [*copy.fds, *region.fds], silent, wanted).way == "gpu"
    assert gpus.read(copy.fds, copy.slabs, source.span, 1) == span(source)
    again, _ = fill(other, devices[1], replace(source, region=region))
    assert gpus.read(again.fds, again.slabs, source.span, 1) == span(source)
    other.close()


def test_more_slabs_of_two_gpus_than_go_with_one_order_come_from_the_disk(home, source, monkeypatch) -> None:
    gpus = Gpus(simulated.make(str(home / "others"), nbytes=64 * MIB, granularity=1 << 16))
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", gpus.directory)
    devices = [GpuDevice(gpus.driver, gpu, slab=1 << 16) for gpu in gpus.all]
    fillers = [GpuFiller(GpuLink(gpu.uuid)) for gpu in gpus.all]
    told: list[bool] = []
    fillers[1].link.running = told.append
    region, _ = fill(fillers[0], devices[0], source)
    assert 2 * len(region.slabs) > fdpass.MOST_FDS
    copy, _ = fill(fillers[1], devices[1], replace(source, region=region))
    assert gpus.read(copy.fds, copy.slabs, source.span, 1) == span(source) and told == [True]
    for owner in (*fillers, *devices):
        owner.close()


@pytest.mark.parametrize("failure", [{"lost": 0}, {"die": "copy_across"}, {"copy_across": [1]}])
def test_another_gpu_that_fails_costs_no_load(gpus, devices, filler, source, failure) -> None:
    region, _ = fill(filler, devices[0], source)
    expected = span(source)
    fail(gpus.directory, **({"lost": [gpus.all[0].uuid]} if "lost" in failure else failure))
    other = GpuFiller(GpuLink(gpus.all[1].uuid))
    copy, _ = fill(other, devices[1], replace(source, region=region))
    assert gpus.read(copy.fds, copy.slabs, source.span, 1) == expected
    fail(gpus.directory)
    other.close()


def test_what_was_written_to_another_gpu_does_not_spread(gpus, devices, filler, source) -> None:
    region, _ = fill(filler, devices[0], source)
    gpus.write(region.fds, region.slabs, source.sidecar.manifest.layout.tensors["b"], b"\xff")
    other = GpuFiller(GpuLink(gpus.all[1].uuid))
    copy = devices[1].allocate("m", source.span)
    order = work(source, copy, peer=gpus.all[0].uuid, peer_slabs=list(region.slabs))
    with pytest.raises(Damaged, match="tensor"):
        other.link.work(order, [*copy.fds, *region.fds], silent, wanted)
    copy.close()
    again, _ = fill(other, devices[1], replace(source, region=region))  # from the disk then
    assert gpus.read(again.fds, again.slabs, source.span, 1) == span(source)
    other.close()


def test_damage_is_found_before_it_is_handed_out(devices, filler, source) -> None:
    os.chmod(source.container, 0o600)
    start, nbytes = source.sidecar.data_range()
    with open(source.container, "r+b") as file:
        file.seek(start + nbytes // 2)
        byte = file.read(1)
        file.seek(start + nbytes // 2)
        file.write(bytes([byte[0] ^ 0xFF]))
    region = devices[0].allocate("m", source.span)
    with pytest.raises(Damaged, match="tensor w"):
        filler.fill(region, source, silent, wanted)
    with pytest.raises(RuntimeError):
        region.export()


@pytest.mark.parametrize("call", ["open", "pin", "stream", "import", "reserve", "map", "allow", "copy_in", "wait"])
def test_a_call_that_fails_fails_the_load_alone(gpus, devices, filler, source, call) -> None:
    fail(gpus.directory, **{call: [1]})
    region = devices[0].allocate("m", source.span)
    with pytest.raises((DeviceLost, NoRoom)):
        filler.fill(region, source, silent, wanted)
    region.close()
    fail(gpus.directory)
    again, _ = fill(filler, devices[0], source)
    assert gpus.read(again.fds, again.slabs, source.span) == span(source)


def test_a_worker_whose_context_has_failed_ends(gpus, devices, filler, source) -> None:
    fill(filler, devices[0], source)
    region = devices[0].allocate("m", source.span)
    fail(gpus.directory, lost=[gpus.all[0].uuid])
    with pytest.raises(DeviceLost, match="is lost"):
        filler.fill(region, source, silent, wanted)
    fail(gpus.directory)
    assert filler.link.pid is None
    region.close()
    again, _ = fill(filler, devices[0], source)
    assert gpus.read(again.fds, again.slabs, source.span) == span(source)


def test_the_death_of_an_idle_worker_is_noted(devices, filler, source) -> None:
    told: list[bool] = []
    fill(filler, devices[0], source)
    filler.link.running = told.append
    pid = filler.link.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    leaks.wait_ended({pid}, leaks.GRACE)
    filler.link.end_if_idle(3600)
    assert told == [False] and filler.link.pid is None


@pytest.mark.parametrize("call", ["open", "copy_in"])
def test_a_worker_that_dies_costs_the_load_alone(gpus, devices, filler, source, call) -> None:
    fail(gpus.directory, die=call)
    region = devices[0].allocate("m", source.span)
    with pytest.raises(DeviceLost, match="killed by signal 9"):
        filler.fill(region, source, silent, wanted)
    region.close()
    assert filler.link.pid is None and gpus.used() == 0
    fail(gpus.directory)
    again, _ = fill(filler, devices[0], source)
    assert gpus.read(again.fds, again.slabs, source.span) == span(source)


def test_a_worker_that_was_killed_while_idle_is_replaced(devices, filler, source) -> None:
    fill(filler, devices[0], source)
    pid = filler.link.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    leaks.wait_ended({pid}, leaks.GRACE)
    fill(filler, devices[0], source)
    assert filler.link.pid not in (None, pid)


def test_an_order_that_is_not_wanted_any_more_ends(gpus, devices, filler, source, home) -> None:
    gate = home / "gate"
    os.mkfifo(gate)
    fail(gpus.directory, hold={"copy_in": str(gate)})
    region = devices[0].allocate("m", source.span)
    standing, sent = threading.Event(), threading.Event()
    looks: list[bool] = []

    def cancelled() -> bool:
        if looks:  # the look before this one was answered with yes, and passed on
            sent.set()
        if standing.is_set():
            looks.append(True)
        return bool(looks)

    def let_go() -> None:
        """Open the gate when the worker, which stands there, has heard that its work is not wanted."""
        fd = entered(gate)
        standing.set()
        sent.wait()
        while unheard(filler.link):
            pass
        fail(gpus.directory)
        os.close(fd)

    opener = threading.Thread(target=let_go)
    opener.start()
    with pytest.raises(Cancelled):
        filler.fill(region, source, silent, cancelled)
    opener.join()
    with pytest.raises(Cancelled):
        filler.fill(region, source, silent, lambda: True)


def unheard(link: GpuLink) -> int:
    """Bytes sent to the worker that it has not received; what is being sent counts, too."""
    left = array.array("i", [1])
    sock = link._sock
    if sock is not None:
        fcntl.ioctl(sock, termios.TIOCOUTQ, left)
    return left[0]


def test_an_idle_worker_ends_and_gives_its_context_back(gpus, devices, filler, source) -> None:
    told: list[bool] = []
    filler.link.running = told.append
    region, _ = fill(filler, devices[0], source)
    assert gpus.used() > region.nbytes and told == [True]
    filler.link.end_if_idle(3600)
    assert told == [True]
    filler.link.end_if_idle(0)
    assert gpus.used() == region.nbytes and told == [True, False] and filler.link.pid is None


def test_no_room_leaves_nothing(gpus, devices) -> None:
    with pytest.raises(NoRoom):
        devices[0].allocate("m", 65 * MIB)
    assert gpus.used() == 0 and devices[0].nbytes == 0


@pytest.mark.parametrize("call", ["create", "export"])
def test_an_allocation_that_fails_halfway_leaves_nothing(gpus, devices, call) -> None:
    fail(gpus.directory, **{call: [2]})
    with pytest.raises((NoRoom, DeviceLost)):
        devices[0].allocate("m", 10 * MIB)
    assert gpus.used() == 0 and devices[0].nbytes == 0


def test_a_region_is_exported_when_it_is_sealed_and_closed_once(gpus, devices) -> None:
    region = devices[0].allocate("m", 1)
    with pytest.raises(RuntimeError):
        region.export()
    with pytest.raises(RuntimeError):
        region.seal()
    with pytest.raises(RuntimeError):
        _ = region.buffer
    region.keep_tail(b"tail")
    region.seal()
    assert os.pread(region.export(), 4, 0) == b"tail"
    assert devices[0].statistics().region_nbytes == 2 * MIB == devices[0].nbytes
    region.close()
    region.close()
    assert gpus.used() == 0
