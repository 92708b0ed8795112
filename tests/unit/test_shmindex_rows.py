"""The index, writer to reader: every field, reuse of slots, full tables, strange files."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest
from helpers.index_rows import is_whole, is_whole_lease, put, put_lease, writer

from trims.linux import flock
from trims.shmindex import layout as lay
from trims.shmindex.reader import Index, read
from trims.shmindex.writer import mark_closed

GOLDEN = os.path.join(os.path.dirname(__file__), "..", "golden", "index.bin")


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "index")


@pytest.fixture
def index(path):
    index = writer(path)
    yield index
    index.close()


def fill(index):
    for key, n in ((1, 3), (2, 4), (3, 5)):
        put(index, key, n)
    put_lease(index, 11, 1)
    put_lease(index, 12, 3)
    index.put_place("host", 100, 60, 10, 20, 30, 5, 7)
    index.put_meta({"attaches": 5, "loads": 2})


def test_every_field_is_read_back(index, path):
    fill(index)
    s = read(path)
    assert (s.identity, s.pid, s.started, s.uid) == ("0f" * 16, 42, 7, 1000)
    assert (s.store, s.socket, s.version, s.since) == ("/the/store", "/run/trims.sock", "0.1.0", 1.5)
    assert s.counters == {"attaches": 5, "loads": 2}
    assert s.settings == {}
    index.put_meta({"attaches": 5}, {"policy": "lru", "empty": "", "odd": "a=b\nc"})
    assert read(path).counters == {"attaches": 5}
    assert read(path).settings == {"policy": "lru", "empty": "", "odd": "a=b c"}
    assert [r.hits for r in s.residencies] == [3, 4, 5]
    assert [r.digest for r in s.residencies] == [f"{n:064x}" for n in (1, 2, 3)]
    assert all(is_whole(r) and r.expires == float("inf") for r in s.residencies)
    assert [(x.lease, x.residency_slot) for x in s.leases] == [(11, 0), (12, 2)]
    assert all(is_whole_lease(x) for x in s.leases)
    host, gpu = s.places
    assert (host.place, host.budget, host.used, host.pinned) == ("host", 100, 60, 10)
    assert (host.leased, host.idle, host.spare, host.reserved) == (20, 30, 5, 7)
    assert (gpu.place, gpu.budget) == ("gpu:GPU-1", 0)


def test_a_generation_is_a_state(index, path):
    first = read(path).generation
    index.put_meta({})
    assert read(path).generation == first + 1


def test_a_row_that_goes_leaves_its_slot_to_the_next(index, path):
    fill(index)
    index.drop_residency(1)
    put(index, 9, 8)
    s = read(path)
    assert [(r.slot, r.hits) for r in s.residencies] == [(0, 8), (1, 4), (2, 5)]
    assert [x.lease for x in s.leases] == [12]  # lease 11 was on what slot 0 held before
    index.drop_lease(12)
    index.drop_lease(12)
    index.drop_residency(77)
    assert read(path).leases == []


def test_a_full_table_drops_rows_and_counts_them(index, path):
    for key in range(10):
        put(index, key, key)
    index.put_meta({})
    assert len(read(path).residencies) == 8
    assert index.dropped == 2
    for lease in range(1, 20):
        put_lease(index, lease, 0)
    index.put_meta({})
    assert len(read(path).leases) == 16


def test_bad_values_leave_no_odd_counter(index, path):
    fill(index)
    with pytest.raises(struct.error):
        put(index, 1, -5)
    with pytest.raises(struct.error):
        index.put_place("host", -1)
    assert [r.hits for r in read(path).residencies] == [3, 4, 5]
    assert read(path).places[0].budget == 100


def test_long_texts_are_cut_at_a_character(path):
    index = writer(path, store="/" + "\u00e9" * 600)
    put(index, 1, 3)
    put_lease(index, 1, 1)
    index.put_meta({})
    assert read(path).store == "/" + "\u00e9" * 511
    index.close()


def test_alive_is_asked_of_the_lock(index, path):
    assert not read(path).alive
    lock = os.open(os.path.join(os.path.dirname(path), "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    assert flock.own(lock)
    assert read(path).alive
    mark_closed(path)  # the lock is a successor's, the file is not
    assert not read(path).alive
    os.close(lock)


def test_a_closed_index_says_so(path):
    index = writer(path)
    put(index, 1, 3)
    index.close()
    lock = os.open(os.path.join(os.path.dirname(path), "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    assert flock.own(lock)
    assert not read(path).alive
    os.close(lock)


def test_an_open_index_follows_the_manager(path):
    first = writer(path)
    with Index(path) as index:
        assert index.snapshot().pid == 42
        second = writer(path, pid=43)
        assert index.snapshot().pid == 43
        os.unlink(path)
        assert index.snapshot() is None
    first.close()
    second.close()


@pytest.mark.parametrize("left", [0, 100, lay.PAGE, lay.PAGE + 100])
def test_a_file_that_is_cut_kills_neither_side(index, path, left):
    fill(index)
    with Index(path) as reader:
        assert len(reader.snapshot().residencies) == 3
        os.truncate(path, left)
        assert reader.snapshot() is None
        for place in ("host", "gpu:GPU-1"):
            index.put_place(place, 100)
        put(index, 2, 4)
        put_lease(index, 12, 2)
        index.put_meta({"loads": 2})
        s = reader.snapshot()
        assert (s.pid, s.counters) == (42, {"loads": 2})
        assert [r.digest for r in s.residencies] == [f"{2:064x}"] and is_whole(s.residencies[0])
        os.truncate(path, left)
    assert index.dropped == 0  # and the fixture closes it, cut


@pytest.mark.parametrize("data", [b"", b"x" * 100, b"x" * 8192, lay.MAGIC + b"\1\0\0\0" + b"\0" * 8192])
def test_what_is_no_index_is_none(path, data):
    with open(path, "wb") as file:
        file.write(data)
    assert read(path) is None
    mark_closed(path)


def test_no_index_is_none(path):
    assert read(path) is None
    mark_closed(path)


def test_a_damaged_row_is_left_out(index, path):
    fill(index)
    layout = lay.Layout(lay.PLACES, 8, 16)
    with open(path, "r+b") as file:
        file.seek(layout.hot_at + lay.HOT_STRIDE + 40)
        file.write(b"\xff")
        file.seek(layout.names_at + 2 * lay.NAMES_STRIDE)
        file.write(b"X")
        file.seek(layout.lease_at + 9)
        file.write(b"\xff")
    s = read(path)
    assert [r.hits for r in s.residencies] == [3]
    assert s.leases == []


def test_golden_bytes(index, path):
    """A header, a place, rows and leases as the second version wrote them, read by this one."""
    fill(index)
    layout = lay.Layout(lay.PLACES, 8, 16)
    with open(path, "rb") as file, open(GOLDEN, "rb") as golden:
        data, kept = file.read(), golden.read()
    assert len(data) == layout.nbytes
    assert data == kept


def test_reading_loads_only_light_modules():
    code = (
        "import sys; base = set(sys.modules); import trims.shmindex.reader;"
        "print(*sorted({'typing','dataclasses','re','json','enum','pathlib','numpy','msgspec','tempfile','socket'}"
        " & (set(sys.modules) - base)))"
    )
    out = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=False, env=_env())
    assert out.stdout.strip() == "", out


def _env() -> dict[str, str]:
    import trims

    return {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(trims.__file__))}
