from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.capabilities import needs_root

from trims.linux import process


def test_this_process_is_alive() -> None:
    started = process.start_time(os.getpid())
    assert started > 0
    assert process.is_alive(os.getpid(), started)
    assert not process.is_alive(os.getpid(), started + 1)


def test_a_hostile_process_name_confuses_nobody() -> None:
    code = "import sys\nopen('/proc/self/comm', 'w').write('x) Z 1 (')\nprint(flush=True)\nsys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert process.is_alive(child.pid, process.start_time(child.pid))
        assert process.start_time(child.pid) >= process.start_time(os.getpid())


def test_a_zombie_and_a_reaped_process_are_not_alive() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    started = process.start_time(child.pid)
    fd = process.watch(child.pid)
    assert process.is_alive(child.pid, started)
    assert select.select([fd], [], [], 0)[0] == []
    child.send_signal(signal.SIGKILL)
    assert select.select([fd], [], [], 30)[0] == [fd]
    assert not process.is_alive(child.pid, started)
    child.wait()
    assert not process.is_alive(child.pid, started)
    assert process.start_time(child.pid) == 0
    with pytest.raises(ProcessLookupError):
        process.watch(child.pid)
    os.close(fd)


def test_the_kernel_says_who_connected(home: Path) -> None:
    path = str(home / "s")
    code = "import socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\nsys.stdin.read()"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE) as child:
            accepted, _ = listener.accept()
            with accepted:
                assert process.peer(accepted) == (child.pid, os.getuid(), os.getgid())


def limit(tmp_path: Path, lines: str, files: dict[str, str]) -> int:
    root = tmp_path / "cgroup"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    membership = tmp_path / "self"
    membership.write_text(lines)
    return process.memory_limit(str(membership), str(root))


PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "1000\n", "memory.max": "2000\n"}, 1000),
        ("0::/a/b\n", {"a/b/memory.max": "500\n", "a/memory.max": "1000\n"}, 500),
        ("0::/\n", {"memory.max": "700\n"}, 700),
        ("0::/../x\n", {"memory.max": "max\n"}, PHYSICAL),
        ("0::/a\n", {"a/memory.max": "garbage\n"}, PHYSICAL),
        ("0::/a\n", {"a/memory.max": f"{PHYSICAL * 2}\n"}, PHYSICAL),
        ("0::/u\n", {"unified/u/memory.max": "900\n"}, 900),
        ("4:memory:/job/1\n0::/\n", {"memory/job/memory.limit_in_bytes": "800\n"}, 800),
        ("3:cpu,memory:/j\n", {"memory/j/memory.limit_in_bytes": "600\n"}, 600),
        ("3:cpu:/j\n", {"memory/j/memory.limit_in_bytes": "600\n"}, PHYSICAL),
        ("", {}, PHYSICAL),
    ],
)
def test_the_limit_is_the_least_of_all_ancestors(
    tmp_path: Path, lines: str, files: dict[str, str], expected: int
) -> None:
    assert limit(tmp_path, lines, files) == expected


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    assert process.memory_limit(str(tmp_path / "none"), str(tmp_path)) == PHYSICAL
    assert 0 < process.memory_limit() <= PHYSICAL


@needs_root
@pytest.mark.parametrize("count", [0, 3, 256, 257, 5000])
def test_the_groups_of_who_connected_however_many(tmp_path: Path, count: int) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        child = os.fork()
        if not child:
            try:
                os.setgroups(range(70_000, 70_000 + count))
                os.setgid(60_000)
                socket.socket(socket.AF_UNIX).connect(path)
                signal.pause()
            finally:
                os._exit(1)
        try:
            with listener.accept()[0] as sock:
                groups = process.peer_groups(sock)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    assert sorted(groups) == [60_000, *range(70_000, 70_000 + count)]


def test_whoever_has_no_number_has_the_kernels() -> None:
    assert process.unmapped_ids() == tuple(
        int(Path(f"/proc/sys/kernel/overflow{kind}").read_text()) for kind in ("uid", "gid")
    )
