from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from trims.errors import LockTimeout, NotPermitted
from trims.linux import flock

HOLDER = """
import os, sys
from trims.linux import flock
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
print({"own": lambda: flock.own(fd), "shared": lambda: flock.try_lock(fd, False),
       "exclusive": lambda: flock.try_lock(fd, True)}[sys.argv[2]](), flush=True)
sys.stdin.read()
"""


@contextmanager
def holder(path: Path, kind: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a lock on `path` for the length of the block, or until it is killed."""
    command = [sys.executable, "-c", HOLDER, str(path), kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "True\n"
        yield child


@pytest.mark.parametrize(
    ("theirs", "ours", "may"), [("shared", False, True), ("shared", True, False), ("exclusive", False, False)]
)
def test_flocks_of_two_processes(tmp_path: Path, theirs: str, ours: bool, may: bool) -> None:
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    with holder(path, theirs) as child:
        assert flock.try_lock(fd, ours) is may
        child.kill()
        child.wait()
        assert flock.try_lock(fd, ours)
    os.close(fd)


def test_held_times_out_and_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "exclusive"), pytest.raises(LockTimeout, match=str(path)), flock.held(str(path), False, 0.02):
        pytest.fail("the lock was taken")


def test_held_waits_for_the_holders_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with holder(path, "exclusive") as child:
        timer = threading.Timer(0.05, child.send_signal, [signal.SIGKILL])
        timer.start()
        begun = time.monotonic()
        with flock.held(str(path), True, 30.0) as fd:
            assert child.wait() == -signal.SIGKILL
            assert fd >= 0
        assert time.monotonic() - begun < 20
        timer.join()
    assert path.exists()


def test_held_lets_go_when_its_block_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with pytest.raises(RuntimeError), flock.held(path, True, 0):
        raise RuntimeError
    with flock.held(path, True, 0):
        pass


def test_a_lock_in_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises((NotPermitted, FileNotFoundError)), flock.held(str(tmp_path / "none" / "lock"), True, 0):
        pytest.fail("the lock was taken")
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        with pytest.raises(NotPermitted), flock.held(str(tmp_path / "lock"), True, 0):
            pytest.fail("the lock was taken")


def test_one_owner_at_a_time_and_none_after_kill(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert not flock.is_owned(str(path))
    with holder(path, "own") as child:
        assert flock.is_owned(str(path))
        assert not flock.own(fd)
        child.kill()
        child.wait()
        assert not flock.is_owned(str(path))
        assert flock.own(fd)
    assert flock.is_owned(str(path))
    os.close(fd)
    assert not flock.is_owned(str(path))


def test_asking_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    for _ in range(3):
        assert not flock.is_owned(str(path))
    assert flock.own(fd)
    os.close(fd)


def test_closing_another_descriptor_keeps_the_lock(tmp_path: Path) -> None:
    """What POSIX record locks get wrong, and why open-file-description locks are used."""
    path = tmp_path / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    assert flock.own(fd)
    os.close(os.open(path, os.O_RDWR))
    assert flock.is_owned(str(path))
    os.close(fd)


def test_nobody_owns_what_is_not_there(tmp_path: Path) -> None:
    assert not flock.is_owned(str(tmp_path / "none"))
