"""Managers that cannot be talked to: wedged, of another version, another user's, dead, strangers."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import cli, leaks

from trims.client.control import Control
from trims.disk.store import Store
from trims.errors import ManagerNotRunning, ManagerUnreachable, NoSuchModel
from trims.wire import header


@contextmanager
def impostor(path: Path, answer: bytes, keep_open: bool = False) -> Iterator[None]:
    """Something that listens where a manager should, and answers every connection with these bytes."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    done = threading.Event()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                sock, _ = listener.accept()
                with sock:
                    if done.is_set():
                        return
                    sock.sendall(answer)
                    while sock.recv(1 << 16) if keep_open else False:
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            done.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()


def frame(body: bytes, version: int = header.VERSION) -> bytes:
    return struct.pack("<4sB3sI", header.MAGIC, version, b"\0\0\0", len(body)) + body


def test_a_wedged_manager(manager: Any) -> None:
    os.kill(manager.pid, signal.SIGSTOP)
    try:
        assert "stuck" in cli.fails(4, "evict", "--all")
        assert cli.run("status").returncode == 4
        assert cli.run("ps").returncode == 0  # the index needs nobody
        assert "stuck" in cli.fails(4, "stop", "--timeout", "1s")
        (item,) = cli.items("stop", "--now")
        assert item == {"pid": manager.pid, "outcome": "killed", "leases": 0}
        assert cli.run("status").returncode in (1, 3)
    finally:
        leaks.kill({manager.pid})


def test_a_killed_manager_leaves_a_stale_socket(manager: Any) -> None:
    manager.kill()
    assert cli.run("status").returncode == 1
    assert "dead" in cli.run("status").stdout
    cli.fails(3, "ps")
    cli.fails(3, "evict", "--all")
    assert cli.items("stop")[0]["outcome"] == "not-running"
    assert cli.items("start")[0]["outcome"] == "started"
    cli.ok("stop")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (frame(b"{}", version=9), "version 9"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "speaks no trims"),
        (frame(b'{"t":"welcome"'), "the manager is gone"),
        (frame(b'{"t":"what"'), "malformed"),
        (b"", "the manager is gone"),
        (frame(b'{"t":"refused","id":0,"code":"unreachable","what":"too many of you"}'), "too many of you"),
    ],
    ids=["version", "stranger", "cut", "no message", "hangs up", "refuses"],
)  # fmt: skip
def test_impostors(store: Store, runtime: Any, answer: bytes, says: str) -> None:
    with impostor(runtime.socket, answer):
        line = cli.fails(4, "evict", "--all")
        assert says in line, line
        assert cli.run("status").returncode in (0, 4)
        assert cli.run("ls").returncode == 0


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_another_users_directory_is_not_trusted(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRIMS_SOCKET", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name)
    directory = Path(os.environ["TMPDIR"]) / f"trims-{os.getuid()}"
    directory.mkdir(mode=0o700)
    os.chown(directory, 12345, 12345)
    assert "belongs to user 12345" in cli.fails(4, "evict", "--all")
    assert cli.run("status").returncode == 4
    os.chown(directory, os.getuid(), os.getgid())
    directory.chmod(0o755)
    assert "others can enter" in cli.fails(4, "evict", "--all")


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_another_users_manager(manager: Any) -> None:
    loaded = "import json, pwd, trims_cli.hot, trims_cli.output, trims_cli.resident, trims_cli.status"
    program = f"{loaded}\nimport os; os.setgroups([]); os.setgid(12345); os.setuid(12345)\n{cli.TRIMS[2]}"
    for words in (["evict", "--all"], ["status"]):
        env = {**os.environ, "XDG_CONFIG_HOME": "/nowhere"}
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, env=env)
        assert done.returncode == 4 and "Traceback" not in done.stderr, done
        assert "another user" in done.stdout + done.stderr


class TestControl:
    """The connection itself."""

    def test_nobody(self, runtime: Any) -> None:
        with pytest.raises(ManagerNotRunning, match="trims start"):
            Control([str(runtime.socket)])

    def test_a_long_path_is_nobody_too(self) -> None:
        with pytest.raises((ManagerNotRunning, ManagerUnreachable)):
            Control(["/tmp/" + "x" * 200])

    def test_requests_and_refusals(self, manager: Any) -> None:
        with manager.control() as control:
            assert control.welcome["pid"] == manager.pid
            assert control.request("status")[0]["pid"] == manager.pid
            with pytest.raises(NoSuchModel):
                control.request("warm", ref="nope:latest")
            numbers = [control.begin("status"), control.begin("status")]
            assert control.finish(numbers[::-1])[0] in numbers

    def test_silence_is_told_from_absence(self, runtime: Any) -> None:
        with impostor(runtime.socket, b"", keep_open=True), pytest.raises(ManagerUnreachable, match="stuck"):
            Control([str(runtime.socket)], greeting=0.1)

    def test_a_manager_that_ends(self, manager: Any) -> None:
        with manager.control() as control:
            manager.kill()
            with pytest.raises(ManagerUnreachable, match="gone"):
                control.request("status")

    def test_descriptors_are_given_back(self, runtime: Any) -> None:
        before = leaks.open_fds()
        with impostor(runtime.socket, b"junk" * 10):
            for _ in range(3):
                with pytest.raises(ManagerUnreachable):
                    Control([str(runtime.socket)])
        assert leaks.open_fds().keys() == before.keys()


def test_a_manager_without_its_index(manager: Any) -> None:
    os.unlink(f"{manager.runtime.directory}/index")
    assert "index is gone" in cli.fails(4, "ps")
    cli.ok("status")
    cli.ok("ls")
