"""Starting: one manager comes to be, whoever starts it and however many do; or one line says why not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from helpers import leaks
from helpers.raw import Raw

from trims import config
from trims.disk.store import create_store
from trims.errors import ManagerUnreachable, NoStore, NotPermitted, TrimsError, UsageError
from trims.manager import launch
from trims.wire.messages import Status

START = "import json; from trims import config; from trims.manager import launch; print(json.dumps(launch.start(config.load(flags={'budget.host': '8MiB', 'budget.spare': '0'}))))"  # noqa: E501


@pytest.fixture
def store(runtime):
    return create_store(str(runtime.store))


def started(**flags: str) -> dict:
    return launch.start(config.load(flags={"budget.host": "8MiB", "budget.spare": "0"} | flags), timeout=20)


def test_a_second_start_finds_the_first(store, managers):
    manager = managers()
    again = managers()
    assert again.pid == manager.pid
    assert again.started["already"] is True
    assert again.started["budgets"]["host"]["budget"] == 64 << 20


def test_twenty_starts_at_once_make_one_manager(store, runtime, managers):
    processes = [
        subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, env=runtime.env) for _ in range(20)
    ]
    answers = [json.loads(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * 20
    assert len({answer["pid"] for answer in answers}) == 1
    assert sum(not answer["already"] for answer in answers) == 1
    managers().stop()


def test_a_manager_is_nobodys_child(store, manager):
    with open(f"/proc/{manager.pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    assert int(fields[3]) != os.getsid(0)  # a session of its own
    assert not os.readlink(f"/proc/{manager.pid}/cwd").startswith(str(manager.runtime.directory))


def test_it_is_not_dumpable_and_its_files_are_private(store, manager):
    directory = manager.runtime.directory
    assert os.stat(f"/proc/{manager.pid}/mem").st_uid == 0  # the kernel gives the files of such a process to root
    for name in ("index", "lock", "log", "trims.sock"):
        assert os.stat(directory / name).st_mode & 0o077 == 0, name


def test_reasons(runtime):
    with pytest.raises(NoStore):
        started()
    create_store(str(runtime.store))
    with pytest.raises(UsageError, match="no policy"):
        started(**{"residency.policy": "tea"})
    with pytest.raises(UsageError, match="budget"):
        started(**{"budget.host": "lots"})
    os.chmod(runtime.directory, 0o755)
    with pytest.raises(NotPermitted, match="chmod 700"):
        started()
    os.chmod(runtime.directory, 0o700)
    with pytest.raises(UsageError, match="107 bytes"):
        started(**{"manager.socket": str(runtime.directory / ("x" * 100) / "s")})


def test_a_foreign_file_at_the_socket_is_left_alone(store, runtime):
    runtime.socket.write_text("precious")
    with pytest.raises(TrimsError, match="no socket"):
        started()
    assert runtime.socket.read_text() == "precious"


def test_a_stale_socket_is_replaced(store, runtime, managers):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(runtime.socket))
    assert managers().started["already"] is False


def test_a_wedged_manager_is_named_not_waited_for(store, manager, monkeypatch):
    monkeypatch.setattr(launch, "GREETING", 0.3)
    os.kill(manager.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ManagerUnreachable, match="stuck"):
            started()
    finally:
        os.kill(manager.pid, signal.SIGCONT)


def test_another_process_may_own_the_directory(store, runtime, monkeypatch):
    from trims.linux import flock
    from trims.manager import runtime as directory
    from trims.paths import RuntimePaths

    lock = os.open(runtime.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    assert flock.own(lock)
    read, write = os.pipe()
    code = (
        "import sys; from trims.manager import runtime as r; from trims.paths import RuntimePaths as P\n"
        "from trims.errors import TrimsError\n"
        "try: r.own(P(sys.argv[1]), patience=0.2)\n"
        "except TrimsError as e: print(e.code)"
    )
    out = subprocess.run([sys.executable, "-c", code, str(runtime.socket)], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "unreachable"
    taken = []
    thread = threading.Thread(target=lambda: taken.append(directory.own(RuntimePaths(str(runtime.socket)), 20)))
    thread.start()
    os.close(lock)  # its holder ends
    thread.join()
    assert len(taken) == 1
    os.close(taken[0])
    os.close(read)
    os.close(write)


def test_a_start_that_dies_shows_the_log(store, runtime, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(TrimsError, match="did not start"):
        started()


def test_foreground_serves_and_tells_the_service_manager(store, runtime):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(runtime.directory / "notify"))
        service.settimeout(20)
        env = runtime.env | {"NOTIFY_SOCKET": str(runtime.directory / "notify")}
        code = START.replace("launch.start(", "launch.start(foreground=True, config=")
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert f"READY=1\nMAINPID={process.pid}" == service.recv(100).decode()
        with Raw(runtime.socket) as client:
            assert client.welcome.pid == process.pid
        process.terminate()
        assert service.recv(100) == b"STOPPING=1"
        out, err = process.communicate(timeout=20)
        assert process.returncode == 0
        assert json.loads(out)["pid"] == process.pid
        assert b"info the manager is ready" in err


@pytest.mark.parametrize("how", ["module", "foreground"])
def test_socket_activation(store, runtime, how):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(runtime.socket))
        os.chmod(runtime.socket, 0o600)
        listener.listen()
        code = (
            "import os, sys\n"
            "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid())}\n"
            "os.dup2(int(sys.argv[1]), 3)\n"
            "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
        )
        foreground = ["-c", START.replace("launch.start(", "launch.start(foreground=True, config=")]
        words = ["-m", "trims.manager"] if how == "module" else foreground
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(listener.fileno()), *words],
            pass_fds=[listener.fileno()],
            env=runtime.env | {"TRIMS_HOST_BUDGET": "8MiB"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with Raw(runtime.socket) as client:
            assert client.welcome.pid == process.pid
        process.terminate()
        process.communicate(timeout=20)
        assert runtime.socket.exists()  # it is the service manager's


def test_idle_exit(store, managers):
    manager = managers(manager_idle_exit="200ms")
    with Raw(manager.runtime.socket) as client:
        client.ask(Status)
        assert client.closed_by_peer()
    assert not leaks.wait_ended({manager.pid}, 10)
