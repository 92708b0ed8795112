"""What only real host memory does: spare pages, seals, running out; and the fake's chosen failures."""

from __future__ import annotations

import os

import pytest

from trims.devices.fake import FakeDevice
from trims.devices.host import HEADROOM, HostDevice
from trims.errors import DeviceLost, NoRoom
from trims.linux import install_hook, memfd, process

MIB = 1 << 20


@pytest.fixture
def device():
    device = HostDevice()
    yield device
    device.close()


@pytest.fixture
def steps():
    """Names of the steps passed; `fail` names one that raises NoRoom."""
    seen: list[str] = []
    fail: list[str] = []

    def hook(name: str) -> None:
        seen.append(name)
        if name in fail:
            raise NoRoom("chosen to fail")

    install_hook(hook)
    seen_and_fail = (seen, fail)
    yield seen_and_fail
    install_hook(None)


def blocks(fd: int) -> int:
    return os.fstat(fd).st_blocks * 512


def test_a_load_takes_the_ready_pages_and_they_come_back(device):
    device.set_spare(8 * MIB)
    assert device.wait_spare(8 * MIB, 30)
    ready = os.fstat(device._pool._ready.fd).st_ino
    region = device.allocate("m", 8 * MIB)
    assert os.fstat(region._ready.fd).st_ino == ready
    assert not device.wait_spare(MIB, 0.05)  # not while a load needs the processor
    region.seal()
    assert device.wait_spare(8 * MIB, 30)
    assert device.statistics().spare_nbytes == 8 * MIB
    region.close()


@pytest.mark.parametrize("nbytes", [3 * MIB, 8 * MIB, 11 * MIB])
def test_ready_pages_are_cut_or_extended_to_the_load(device, nbytes):
    device.set_spare(8 * MIB)
    assert device.wait_spare(8 * MIB, 30)
    device.set_spare(8 * MIB)
    region = device.allocate("m", nbytes)
    region.prepare(0, nbytes)
    region.buffer[:] = b"x" * nbytes
    region.seal()
    assert os.fstat(region.export()).st_size == nbytes == blocks(region.export())


def test_a_small_load_leaves_the_ready_pages_alone(device):
    device.set_spare(8 * MIB)
    assert device.wait_spare(8 * MIB, 30)
    device.allocate("m", MIB)
    assert device.statistics().spare_nbytes == 8 * MIB


def test_giving_spare_back_is_done_when_it_returns(device):
    device.set_spare(8 * MIB)
    assert device.wait_spare(8 * MIB, 30)
    assert device.set_spare(0) == 0


def test_pages_are_there_before_each_part_is_filled(device):
    region = device.allocate("m", 5 * MIB)
    assert blocks(region._ready.fd) == 0
    region.prepare(MIB + 5, MIB)  # whole pages, on both sides
    assert blocks(region._ready.fd) == MIB + memfd.PAGE
    region.prepare(0, 5 * MIB)
    assert blocks(region._ready.fd) == 5 * MIB


def test_ready_pages_need_no_preparing(device, steps):
    device.set_spare(8 * MIB)
    assert device.wait_spare(8 * MIB, 30)
    region = device.allocate("m", 9 * MIB)
    steps[0].clear()
    region.prepare(0, 8 * MIB)
    assert "memfd populate" not in steps[0]
    region.prepare(4 * MIB, 5 * MIB)
    assert "memfd populate" in steps[0] and blocks(region._ready.fd) == 9 * MIB


def test_no_memory_is_no_room_and_leaves_nothing(device, steps):
    steps[1][:] = ["memfd resize"]
    with pytest.raises(NoRoom):
        device.allocate("m", MIB)
    assert device.statistics().regions == 0
    steps[1][:] = ["memfd populate"]
    region = device.allocate("m", MIB)
    with pytest.raises(NoRoom):
        region.prepare(0, MIB)
    region.close()
    steps[1].clear()
    assert device.statistics().regions == 0 and device._owed == 0


def test_the_pool_gives_up_without_memory_and_tries_again_when_set(device, steps):
    steps[1][:] = ["memfd populate"]
    device.set_spare(4 * MIB)
    assert not device.wait_spare(4 * MIB, 0.05)
    steps[1].clear()
    device.set_spare(4 * MIB)
    assert device.wait_spare(4 * MIB, 30)


def test_a_full_machine_is_noticed_before_it_is_full(device, monkeypatch):
    monkeypatch.setattr(process, "memory_available", lambda: HEADROOM + MIB)
    with pytest.raises(NoRoom, match=r"65\.0MiB left"):
        device.allocate("m", MIB + 1)
    region = device.allocate("m", MIB)
    with pytest.raises(NoRoom, match=r"64\.0MiB left"):  # what a load on its way has not taken yet is gone, too
        device.allocate("m", 1)
    region.prepare(0, MIB)
    device.allocate("m", MIB).close()
    region.seal()
    device.allocate("m", MIB)


def test_a_sealed_region_has_every_seal_and_no_writable_descriptor(device):
    region = device.allocate("m", MIB)
    region.seal()
    fd = region.export()
    assert memfd.is_sealed(fd)
    assert os.fstat(fd).st_mode & 0o777 == 0o400
    with pytest.raises(OSError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(OSError):
        os.truncate(fd, 0)


def test_memory_available_is_the_least_of_machine_and_cgroups(tmp_path):
    group = tmp_path / "a" / "b"
    group.mkdir(parents=True)
    membership = tmp_path / "cgroup"
    membership.write_text("0::/a/b\n")
    (tmp_path / "a" / "memory.max").write_text("1000\n")
    (tmp_path / "a" / "memory.current").write_text("900\n")
    (tmp_path / "a" / "memory.stat").write_text("anon 500\nactive_file 20\ninactive_file 30\n")
    (group / "memory.max").write_text("max\n")
    assert process.memory_available(str(membership), str(tmp_path)) == 150
    (group / "memory.max").write_text("500\n")
    (group / "memory.current").write_text("600\n")
    assert process.memory_available(str(membership), str(tmp_path)) == 0
    assert 0 < process.memory_available() <= process.memory_limit()


def test_the_fake_fails_where_it_was_told_to():
    device = FakeDevice(limit=64 * 1024, fail_allocations={2}, fail_seals={3})
    device.allocate("one", 10)
    with pytest.raises(NoRoom):
        device.allocate("two", 10)
    region = device.allocate("three", 10)
    with pytest.raises(DeviceLost):
        region.seal()
    device.lose()
    with pytest.raises(DeviceLost):
        device.allocate("four", 10)
    device.close()
