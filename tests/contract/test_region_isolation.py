"""No client can change a region by any route we know of: tried from real other processes, of the same user and another.

The maker and the client are processes of their own without privileges where the tests run as root, because root may do
everything. A control shows that the attempts themselves work: on an unsealed file of the same kind they succeed.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import socket
from collections.abc import Callable

import pytest
from helpers import capabilities

from trims.devices.host import HostDevice
from trims.linux import fdpass, memfd

NBYTES = 2 * mmap.PAGESIZE
CONTENT = b"weights!" * (NBYTES // 8)
NOBODY = 65534
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2


def _libc_call(name: str, *args: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), name)


def _address(map: mmap.mmap) -> ctypes.c_void_p:
    """Where a read-only map lies: ctypes gives no address of a buffer it may not write to."""
    with open("/proc/self/maps") as file:
        inode = str(os.fstat(map_fd).st_ino)
        (line,) = (line for line in file if "/memfd:" in line and line.split()[4] == inode)
    return ctypes.c_void_p(int(line.split("-")[0], 16))


map_fd = -1


def _reopened(fd: int, act: Callable[[int], object]) -> None:
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    try:
        act(other)
    finally:
        os.close(other)


def _mode_then_reopen(fd: int, _maker: int) -> None:
    os.fchmod(fd, 0o600)
    _reopened(fd, lambda other: os.pwrite(other, b"x", 0))


def _map_writable(fd: int, _maker: int) -> None:
    with mmap.mmap(fd, NBYTES) as map:
        map[0] = 120


def _with_map(call: Callable[[mmap.mmap], None]) -> Callable[[int, int], None]:
    def attempt(fd: int, _maker: int) -> None:
        global map_fd
        map_fd = fd
        with mmap.mmap(fd, NBYTES, prot=mmap.PROT_READ) as map:
            call(map)

    return attempt


def _poke_own_map(map: mmap.mmap) -> None:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(_address(map).value or 0)
        memory.write(b"x")


def _poke_maker(_fd: int, maker: int) -> None:
    with open(f"/proc/{maker}/maps") as file:
        line = next(line for line in file if "memfd:" in line and " rw" in line)
    with open(f"/proc/{maker}/mem", "r+b", buffering=0) as memory:
        memory.seek(int(line.split("-")[0], 16))
        memory.write(b"x")


ATTEMPTS: dict[str, Callable[[int, int], object]] = {
    "mmap writable": _map_writable,
    "mprotect": _with_map(lambda m: _libc_call("mprotect", _address(m), ctypes.c_size_t(NBYTES), 3)),
    "madvise remove": _with_map(lambda m: _libc_call("madvise", _address(m), ctypes.c_size_t(NBYTES), 9)),
    "poke own map": _with_map(_poke_own_map),
    "pwrite": lambda fd, _: os.pwrite(fd, b"x", 0),
    "shrink": lambda fd, _: os.ftruncate(fd, 0),
    "grow": lambda fd, _: os.ftruncate(fd, 2 * NBYTES),
    "punch hole": lambda fd, _: _libc_call(
        "fallocate64", fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, ctypes.c_longlong(0), ctypes.c_longlong(4096)
    ),
    "reopen and write": lambda fd, _: _reopened(fd, lambda other: os.pwrite(other, b"x", 0)),
    "reopen and shrink": lambda fd, _: _reopened(fd, lambda other: os.ftruncate(other, 0)),
    "mode, reopen, write": _mode_then_reopen,
    "poke the maker": _poke_maker,
    "maker's descriptor": lambda _, maker: [
        os.pwrite(os.open(f"/proc/{maker}/fd/{name}", os.O_RDWR), b"x", 0) for name in os.listdir(f"/proc/{maker}/fd")
    ],
    "add a seal": lambda fd, _: fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE),
}


def in_child(uid: int, work: Callable[[], object]) -> int:
    """Fork; the child becomes `uid` and ends after `work`."""
    pid = os.fork()
    if pid:
        return pid
    try:
        if uid != os.getuid():
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


def make(sock: socket.socket, protected: bool) -> None:
    """The maker: one region, handed out; then it stays until it is told to end. Unprotected: everything trims adds
    is left off, and a writable map kept."""
    if protected:
        memfd.make_undumpable()
        region = HostDevice().allocate("secret", NBYTES)
        region.buffer[:] = CONTENT
        region.seal()
        fd, keep = region.export(), None
    else:
        _libc_call("prctl", memfd.PR_SET_DUMPABLE, 1, 0, 0, 0)
        writable = memfd.create("secret", NBYTES)
        keep = mmap.mmap(writable, NBYTES)
        keep[:] = CONTENT
        os.fchmod(writable, 0o400)
        fd = os.open(f"/proc/self/fd/{writable}", os.O_RDONLY)
    fdpass.send(sock, b"r", [fd])
    sock.recv(1)
    del keep


def attack(fd: int, maker: int, out: int) -> None:
    """The client: every attempt, each judged by whether the content or the file changed."""
    results = {}
    for name, attempt in ATTEMPTS.items():
        try:
            attempt(fd, maker)
            results[name] = "done"
        except (OSError, StopIteration, ValueError) as error:
            results[name] = f"refused: {error}"
        size = os.fstat(fd).st_size
        if size != NBYTES or os.pread(fd, NBYTES, 0) != CONTENT:
            results[name] = "CHANGED"
            if size != NBYTES:
                break
    os.write(out, json.dumps(results).encode())


def tried(maker_uid: int, client_uid: int, protected: bool) -> dict[str, str]:
    ours, theirs = socket.socketpair()
    maker = in_child(maker_uid, lambda: (ours.close(), make(theirs, protected)))
    theirs.close()
    data, fds = fdpass.receive(ours, 1)
    assert data == b"r"
    out, told = os.pipe()
    client = in_child(client_uid, lambda: attack(fds[0], maker, told))
    os.close(told)
    with open(out, "rb") as file:
        results = json.loads(file.read())
    os.waitpid(client, 0)
    assert os.pread(fds[0], NBYTES, 0) == CONTENT or not protected
    fdpass.close_all(fds)
    ours.close()
    os.waitpid(maker, 0)
    return dict(results)


def plain_uid() -> int:
    return NOBODY if capabilities.is_root() else os.getuid()


def test_the_same_user_is_refused_everything():
    results = tried(plain_uid(), plain_uid(), protected=True)
    assert results.keys() == ATTEMPTS.keys()
    assert {name: result for name, result in results.items() if not result.startswith("refused")} == {}


def test_another_user_is_refused_everything():
    if not capabilities.is_root():
        pytest.skip("only root can become two other users")
    results = tried(NOBODY, NOBODY - 1, protected=True)
    assert {name: result for name, result in results.items() if not result.startswith("refused")} == {}


def test_the_attempts_work_where_nothing_protects():
    results = tried(plain_uid(), plain_uid(), protected=False)
    assert "CHANGED" in results.values()


def test_a_private_copy_is_allowed_and_harmless():
    device = HostDevice()
    region = device.allocate("m", NBYTES)
    region.buffer[:] = CONTENT
    region.seal()
    with mmap.mmap(region.export(), NBYTES, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as map:
        map[:8] = b"my own.."
        assert os.pread(region.export(), 8, 0) == CONTENT[:8]
    device.close()
