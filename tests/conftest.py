"""Fixtures of all tests: leak guards, a clean environment, and the few real things most tests start from.

docs/testing.md explains them. Every fixture is real: real files, a real store, a real manager process.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from helpers import capabilities, leaks, stubcuda
from helpers import models as model_files
from helpers.gpus import Gpus
from hypothesis import settings

from trims import config
from trims.client.control import Control
from trims.devices import simulated
from trims.errors import ManagerNotRunning
from trims.linux import process

leaks.adopt_orphans()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: Ctrl-C could not be tested
    signal.signal(signal.SIGINT, signal.default_int_handler)
_FAILED = pytest.StashKey[bool]()

# Properties take the time they take on a loaded machine; the suite's own limit is pytest's timeout.
settings.register_profile("trims", deadline=None, print_blob=True)
settings.load_profile("trims")

# Names of the caller's environment that would reach into a test, beside all of TRIMS_*, XDG_* and SLURM_*.
_CLEARED = (
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NO_COLOR",
    "FORCE_COLOR",
    "COLUMNS",
    "LINES",
    "PAGER",
    "EDITOR",
)


def pytest_report_header() -> str:
    return capabilities.report()


@pytest.fixture(scope="session", autouse=True)
def _base_directory(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Choose pytest's own directory before any test changes TMPDIR."""
    tmp_path_factory.getbasetemp()


def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    node.session.stash[_FAILED] = True


@pytest.fixture(autouse=True)
def leak_guard(_base_directory: None, request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a descriptor, thread, process or mapping of shared memory behind."""
    if request.session.stash.get(_FAILED, False):
        request.session.stash[_FAILED] = False
        leaks.forget_failure()
    before = leaks.take()
    yield
    found = leaks.leaked(before)
    if found:
        pytest.fail("the test leaked:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(autouse=True)
def home(leak_guard: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private directory with a short path that HOME, TMPDIR and every XDG_* point into; nothing of TRIMS_* is set."""
    base = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    for name in list(os.environ):
        if name.startswith(("TRIMS_", "XDG_", "SLURM_")) or name in _CLEARED:
            monkeypatch.delenv(name)
    for name, part in (
        ("HOME", "home"), ("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run"), ("XDG_DATA_HOME", "data"),
        ("XDG_STATE_HOME", "state"), ("XDG_CONFIG_HOME", "config"), ("XDG_CACHE_HOME", "cache"),
    ):  # fmt: skip
        (base / part).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(base / part))
    umask = os.umask(0o022)
    yield base
    os.umask(umask)
    shutil.rmtree(base)


@dataclass
class Runtime:
    """Where one manager of a test lives. `env` is the environment for processes of the test."""

    directory: Path
    socket: Path
    store: Path
    env: dict[str, str] = field(default_factory=dict)

    def living(self) -> list[int]:
        """Pids of the processes that listen on a socket in the directory."""
        found = []
        for path in self.directory.rglob("*"):
            if path.is_socket():
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                    try:
                        sock.connect(str(path))
                    except OSError:
                        continue  # nobody listens
                    found.append(process.peer(sock)[0])
        return found


@pytest.fixture
def runtime(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runtime]:
    """A private runtime directory and store for a manager; TRIMS_SOCKET and TRIMS_STORE name them.

    A manager that still lives at the end is killed and fails the test.
    """
    directory = home / "r"
    directory.mkdir(mode=0o700)
    runtime = Runtime(directory, directory / "trims.sock", home / "store")
    monkeypatch.setenv("TRIMS_SOCKET", str(runtime.socket))
    monkeypatch.setenv("TRIMS_STORE", str(runtime.store))
    runtime.env = dict(os.environ)
    yield runtime
    left = set(runtime.living()) - {os.getpid()}
    if left:
        names = ", ".join(leaks.describe(pid) for pid in left)
        leaks.kill(left)
        pytest.fail(f"a manager was left running: {names}", pytrace=False)


@pytest.fixture
def gpus(home: Path, monkeypatch: pytest.MonkeyPatch) -> Gpus:
    """Two simulated GPUs of 64 MiB each, for this process and those it starts from now on."""
    directory = simulated.make(str(home / "gpus"), gpus=2, nbytes=64 << 20)
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", directory)
    return Gpus(directory)


@pytest.fixture
def store_root(home: Path) -> Path:
    """A directory for a store; it does not exist yet."""
    return home / "store"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> model_files.ModelFiles:
    """Small real model files, each made when first asked for and kept for the session. Do not change them."""
    return model_files.ModelFiles(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def stub_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with a stub of the CUDA driver's libraries (`helpers.stubcuda`); skips without a compiler."""
    return stubcuda.build(tmp_path_factory.mktemp("stubcuda"))


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The directory with models that packages ship; skips where `scripts/test` could not fetch them."""
    if capabilities.REAL_MODELS is None:
        pytest.skip("packaged models were not fetched")
    return capabilities.REAL_MODELS


@dataclass
class Manager:
    """A manager process of a test, with an empty store. `kill` and `stop` may be called in any state, also twice."""

    runtime: Runtime
    pid: int
    started: dict[str, Any]

    def control(self) -> Control:
        """A connection of its own to it; a context manager."""
        return Control([str(self.runtime.socket)])

    def request(self, t: str, **fields: Any) -> list[dict[str, Any]]:
        with self.control() as control:
            return control.request(t, **fields)

    def kill(self) -> None:
        """End it as a crash would."""
        leaks.kill({self.pid})

    def stop(self, drain: bool = False) -> None:
        """End it as `trims stop` does, and wait for its end. Fails the test when it does not end."""
        if not leaks.wait_ended({self.pid}, 0):
            return  # its socket may be another one's by now
        with suppress(ManagerNotRunning):
            self.request("stop", drain=drain)
        if leaks.wait_ended({self.pid}, leaks.GRACE):
            self.kill()
            pytest.fail(f"the manager, pid {self.pid}, was told to stop and did not", pytrace=False)


def start_manager(runtime: Runtime, **flags: str) -> Manager:
    """Make the store of `runtime` when it is missing and start a manager on it; `flags` are keys with `_` for `.`."""
    from trims.disk.store import create_store
    from trims.manager import launch

    create_store(str(runtime.store), if_missing=True)
    # lru: the order of eviction must not depend on how long loads took.
    texts = {"budget.host": "64MiB", "budget.spare": "0", "residency.policy": "lru"}
    texts |= {k.replace("_", ".", 1): v for k, v in flags.items()}
    started = launch.start(config.load(flags=texts))
    return Manager(runtime, int(started["pid"]), started)


@pytest.fixture
def manager(runtime: Runtime) -> Iterator[Manager]:
    """A running manager with an empty store, a budget of 64 MiB and no spare memory. Stopped afterwards, if need be."""
    manager = start_manager(runtime)
    yield manager
    manager.stop()


@pytest.fixture
def managers(runtime: Runtime) -> Iterator[Callable[..., Manager]]:
    """Starts managers in `runtime`, one at a time, with other settings (`managers(budget_host="8MiB")`)."""
    made: list[Manager] = []

    def start(**flags: str) -> Manager:
        made.append(start_manager(runtime, **flags))
        return made[-1]

    yield start
    for manager in made:
        manager.stop()
