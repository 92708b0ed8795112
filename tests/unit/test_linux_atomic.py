from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trims import linux
from trims.errors import NoSpace, NotPermitted, TrimsError, UsageError
from trims.linux import atomic, flock, writeback

OLD, NEW = b"old" * 1000, b"new" * 2000


@pytest.fixture
def hook() -> Iterator[Callable[[Callable[[str], None]], None]]:
    yield linux.install_hook
    linux.install_hook(None)


def steps_of(action: Callable[[], None]) -> list[str]:
    seen: list[str] = []
    linux.install_hook(seen.append)
    action()
    linux.install_hook(None)
    return seen


def test_replace_is_durable_and_leaves_nothing(tmp_path: Path, hook) -> None:
    target = tmp_path / "file"
    seen = steps_of(lambda: atomic.replace(str(target), NEW, str(tmp_path), mode=0o444))
    assert seen == ["staged", "write", "before fsync", "before rename", "before directory fsync", "published"]
    assert target.read_bytes() == NEW and target.stat().st_mode & 0o777 == 0o444
    assert os.listdir(tmp_path) == ["file"]


def test_what_is_disposable_is_not_flushed(tmp_path: Path, hook) -> None:
    seen = steps_of(lambda: atomic.replace(str(tmp_path / "file"), NEW, str(tmp_path), durable=False))
    assert seen == ["staged", "write"] and (tmp_path / "file").read_bytes() == NEW


def each_step() -> list[str]:
    return ["staged", "write", "before fsync", "before rename", "before directory fsync", "published"]


@pytest.mark.parametrize("failing", each_step())
def test_a_failure_at_any_step_shows_old_or_new_and_no_rest(tmp_path: Path, hook, failing: str) -> None:
    target = tmp_path / "file"
    target.write_bytes(OLD)

    def fail(step: str) -> None:
        if step == failing:
            raise OSError(errno.EIO, "no luck", "x")

    hook(fail)
    with pytest.raises(OSError, match="no luck"):
        atomic.replace(str(target), NEW, str(tmp_path))
    hook(None)
    after_rename = failing in ("before directory fsync", "published")
    assert target.read_bytes() == (NEW if after_rename else OLD)
    assert os.listdir(tmp_path) == ["file"]


def _die_at(target: str, tmp: str, step: str) -> None:
    linux.install_hook(lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == step else None)
    atomic.replace(target, NEW, tmp)


@pytest.mark.parametrize("dying", each_step())
def test_a_death_at_any_step_leaves_only_an_unlocked_temporary_file(tmp_path: Path, dying: str) -> None:
    target, tmp = tmp_path / "file", tmp_path / "tmp"
    tmp.mkdir()
    target.write_bytes(OLD)
    child = multiprocessing.get_context("fork").Process(target=_die_at, args=(str(target), str(tmp), dying))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    child.close()
    after_rename = dying in ("before directory fsync", "published")
    assert target.read_bytes() == (NEW if after_rename else OLD)
    left = list(tmp.iterdir())
    assert len(left) == (0 if after_rename else 1)
    for path in left:
        fd = os.open(path, os.O_RDONLY)
        assert flock.try_lock(fd, exclusive=True)
        os.close(fd)


def test_a_temporary_file_is_locked_while_it_is_written(tmp_path: Path) -> None:
    with atomic.staged(str(tmp_path), ".h5") as path:
        assert path.endswith(".h5")
        fd = os.open(path, os.O_RDONLY)
        assert not flock.try_lock(fd, exclusive=True)
        assert flock.try_lock(fd, exclusive=False)
        os.close(fd)
    assert os.listdir(tmp_path) == []


def test_write_all_survives_short_writes(tmp_path: Path) -> None:
    """A pipe takes what fits; the writer goes on until all of it is gone."""
    data = os.urandom(1 << 20)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    context = multiprocessing.get_context("fork")
    child = context.Process(target=lambda: (os.close(reader), atomic.write_all(writer, data)))
    child.start()
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        assert file.read() == data
    child.join()
    child.close()


def test_write_all_at_an_offset(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    atomic.write_all(fd, memoryview(bytearray(b"xyz")), offset=5)
    atomic.write_all(fd, b"", offset=100)
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"\0" * 5 + b"xyz"


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b" / "c"
    atomic.make_directory(str(deep), 0o700)
    atomic.make_directory(str(deep), 0o700)
    assert deep.is_dir() and deep.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EROFS, NotPermitted),
        (errno.EACCES, NotPermitted),
        (errno.EPERM, NotPermitted),
        (errno.EIO, TrimsError),
    ],
)
def test_errors_of_the_system_are_told_in_words(number: int, kind: type[TrimsError]) -> None:
    error = atomic.translate(OSError(number, os.strerror(number), "/some/file"), "writing the container")
    assert type(error) is kind and str(error).startswith("writing the container failed: ")
    assert ("read-only" in str(error)) == (number == errno.EROFS)


def test_writeback_is_a_hint_that_never_fails(tmp_path):
    with open(tmp_path / "f", "w+b", buffering=0) as file:
        file.write(b"x" * 9000)
        writeback.begin(file.fileno(), 0, 9000)
        file.seek(0)
        assert file.read() == b"x" * 9000
    read, write = os.pipe()
    writeback.begin(write, 0, 1)  # a pipe has nothing to write back
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("durable", [False, True])
def test_only_files_are_replaced(tmp_path: Path, durable: bool) -> None:
    fifo, link = tmp_path / "fifo", tmp_path / "link"
    os.mkfifo(fifo)
    link.symlink_to(fifo)
    for target in (fifo, link):
        before = target.lstat()
        with pytest.raises(UsageError, match="no file"):
            atomic.replace(str(target), b"x", str(tmp_path), durable=durable)
        after = target.lstat()
        assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "link"]
