"""What every place promises, run on each of them."""

from __future__ import annotations

import mmap
import os
import threading

import pytest

from trims.devices.base import Device
from trims.devices.fake import FakeDevice
from trims.devices.host import HostDevice
from trims.errors import NoRoom

PAGE = mmap.PAGESIZE


@pytest.fixture(params=["fake", "host", "host with spare pages", "host with huge pages"])
def device(request):
    kind = request.param
    if kind == "fake":
        made: Device = FakeDevice(limit=256 << 20)
    else:
        made = HostDevice(huge=True if "huge" in kind else None)
        if "spare" in kind:
            made.set_spare(1 << 20)
            assert made.wait_spare(1 << 20, timeout=30)
    yield made
    made.close()
    assert (made.statistics().region_nbytes, made.statistics().spare_nbytes) == (0, 0)


def mapped(fd: int, nbytes: int) -> bytes:
    with mmap.mmap(fd, nbytes, prot=mmap.PROT_READ) as map:
        return bytes(map)


@pytest.mark.parametrize("nbytes", [0, 1, PAGE, PAGE + 1, 300_000, 1 << 20, 3 << 20])
def test_what_was_filled_is_what_is_handed_out(device, nbytes):
    region = device.allocate("m", nbytes)
    assert region.nbytes >= max(1, nbytes)
    assert region.nbytes % PAGE == 0
    assert len(region.buffer) == region.nbytes
    assert bytes(region.buffer) == bytes(region.nbytes)  # nothing of anybody before
    data = os.urandom(region.nbytes)
    region.buffer[:] = data
    region.seal()
    assert mapped(region.export(), region.nbytes) == data


def test_only_a_sealed_region_is_exported_and_only_an_open_one_filled(device):
    region = device.allocate("m", 10)
    with pytest.raises(RuntimeError):
        region.export()
    region.seal()
    assert region.export() == region.export()
    with pytest.raises(RuntimeError):
        _ = region.buffer
    with pytest.raises(RuntimeError):
        region.seal()
    region.close()
    region.close()
    with pytest.raises(RuntimeError):
        region.export()


def test_a_mapping_outlives_its_region(device):
    region = device.allocate("m", 100)
    region.buffer[:5] = b"hello"
    region.seal()
    with mmap.mmap(region.export(), region.nbytes, prot=mmap.PROT_READ) as map:
        region.close()
        other = device.allocate("n", 100)
        other.buffer[:5] = b"other"
        assert map[:5] == b"hello"


def test_a_filling_given_up_half_way(device):
    region = device.allocate("m", 100_000)
    part = region.buffer[10:20]  # as a traceback would hold it
    region.close()
    assert device.statistics().regions == 0
    del part


def test_statistics_count_every_region_until_it_is_closed(device):
    regions = [device.allocate(str(n), 100_000) for n in range(3)]
    regions[0].seal()
    assert device.statistics().regions == 3
    assert device.statistics().region_nbytes == sum(r.nbytes for r in regions)
    regions[0].close()
    regions[1].close()
    assert device.statistics().regions == 1


def test_more_than_there_is_gives_no_room_and_takes_nothing(device):
    with pytest.raises(NoRoom):
        device.allocate("m", 1 << 50)
    assert device.statistics().regions == 0
    device.allocate("m", 100).close()


def test_spare_can_be_set_and_given_back(device):
    device.set_spare(2 << 20)
    assert device.set_spare(0) == 0
    assert device.statistics().spare_nbytes == 0
    region = device.allocate("m", 100)
    region.seal()


def test_many_threads_each_with_its_own_region(device):
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for _ in range(5):
                region = device.allocate(str(n), 50_000 * (n + 1))
                region.buffer[:] = bytes([n]) * region.nbytes
                region.seal()
                assert mapped(region.export(), region.nbytes) == bytes([n]) * region.nbytes
                region.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert device.statistics().regions == 0
