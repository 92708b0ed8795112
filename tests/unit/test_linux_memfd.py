from __future__ import annotations

import ctypes
import mmap
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers.capabilities import needs_tmpfs

from trims.errors import NoRoom
from trims.linux import memfd

PAYLOAD = b"weights!" * 1024


@pytest.fixture
def sealed() -> Iterator[tuple[int, int]]:
    """(the maker's descriptor, the one handed out) of a sealed region that holds PAYLOAD."""
    fd = memfd.create("test", memfd.pages(len(PAYLOAD)))
    os.pwrite(fd, PAYLOAD, 0)
    out = memfd.seal(fd)
    yield fd, out
    os.close(fd)
    os.close(out)


def test_pages() -> None:
    assert [memfd.pages(n) for n in (0, 1, memfd.PAGE, memfd.PAGE + 1)] == [memfd.PAGE] * 3 + [2 * memfd.PAGE]


def test_a_region_is_zero_and_of_its_size() -> None:
    fd = memfd.create("x" * 300, 3 * memfd.PAGE)
    assert os.fstat(fd).st_size == 3 * memfd.PAGE and os.pread(fd, 4, 0) == b"\0" * 4
    assert not os.get_inheritable(fd) and not memfd.is_sealed(fd)
    os.close(fd)


def test_reserved_pages_are_there() -> None:
    fd = memfd.create("reserve", 8 * memfd.PAGE)
    assert os.fstat(fd).st_blocks == 0
    memfd.reserve(fd, 0, 8 * memfd.PAGE)
    assert os.fstat(fd).st_blocks * 512 == 8 * memfd.PAGE
    os.close(fd)


def test_a_size_that_the_system_refuses_is_no_room() -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(NoRoom, match="no memory for a region"):
            memfd.create("large", 2 << 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_is_handed_out_can_be_read_and_mapped(sealed: tuple[int, int]) -> None:
    _, out = sealed
    assert memfd.is_sealed(out) and os.fstat(out).st_mode & 0o777 == 0o400
    with mmap.mmap(out, 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[: len(PAYLOAD)] == PAYLOAD
    with mmap.mmap(out, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as private:
        private[0] = 0
        assert os.pread(out, 1, 0) == PAYLOAD[:1]


@pytest.mark.parametrize("which", [0, 1])
def test_nobody_can_change_a_sealed_region(sealed: tuple[int, int], which: int) -> None:
    fd = sealed[which]
    for attempt in (
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.ftruncate(fd, 0),
        lambda: os.ftruncate(fd, 1 << 20),
        lambda: os.posix_fallocate(fd, 0, 1 << 20),
        lambda: mmap.mmap(fd, 0, prot=mmap.PROT_READ | mmap.PROT_WRITE),
    ):
        with pytest.raises(OSError):
            attempt()
    assert os.pread(sealed[1], len(PAYLOAD), 0) == PAYLOAD


def test_reopening_for_writing_does_not_help(sealed: tuple[int, int]) -> None:
    try:
        fd = os.open(f"/proc/self/fd/{sealed[1]}", os.O_RDWR)
    except PermissionError:
        return  # the mode alone stops everybody but root
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    os.close(fd)


def test_a_read_only_map_cannot_be_made_writable(sealed: tuple[int, int]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(sealed[1], 0, prot=mmap.PROT_READ) as mapped:
        assert len(mapped) == memfd.pages(len(PAYLOAD))
        with open("/proc/self/maps") as file:
            address = next(int(line.split("-")[0], 16) for line in file if "memfd:test" in line)
        assert libc.mprotect(ctypes.c_void_p(address), memfd.PAGE, mmap.PROT_READ | mmap.PROT_WRITE) == -1


def test_what_is_no_memfd_is_not_sealed(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with open(path, "rb") as file:
        assert not memfd.is_sealed(file.fileno())


def test_undumpable() -> None:
    code = (
        "import ctypes\nfrom trims.linux import memfd\nlibc = ctypes.CDLL(None)\n"
        "before = libc.prctl(3, 0, 0, 0, 0)\nmemfd.make_undumpable()\nprint(before, libc.prctl(3, 0, 0, 0, 0))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1 0\n"


@needs_tmpfs
def test_memory_that_runs_out_is_no_room(tmp_path) -> None:
    """The memory of a memfd cannot be bounded for one process, that of a small tmpfs can; the calls are the same."""
    code = (
        "import ctypes, os, sys\nfrom trims.errors import NoRoom\nfrom trims.linux import memfd\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        "assert c.unshare(0x20000) == 0 and c.mount(b'none', b'/', None, 0x44000, None) == 0\n"
        "assert c.mount(b'tmpfs', sys.argv[1].encode(), b'tmpfs', 0, b'size=64k') == 0\n"
        "fd = os.open(sys.argv[1] + '/f', os.O_RDWR | os.O_CREAT)\n"
        "memfd.resize(fd, 1 << 20)\n"
        "try:\n    memfd.reserve(fd, 0, 1 << 20)\nexcept NoRoom as error:\n    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("no memory for a region: No space left on device")
