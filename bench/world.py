"""A store, a manager and all they write, in directories of their own that are gone afterwards."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
TRIMS = str(Path(sys.executable).with_name("trims"))


class Failed(RuntimeError):
    """A trims command failed; the text is what it said."""


class World:
    """A context manager. The store lies below build/ (a real disk), sockets below /tmp (their paths must be short).

    The environment of this process is left alone: `env` is for the processes that shall live in this world.
    """

    def __init__(self, host_budget: str = "4GiB", below: Path = ROOT / "build", sockets: str = "/tmp") -> None:
        """below, sockets: other directories for the two."""
        self.host_budget, self._below, self._sockets = host_budget, below, sockets

    def __enter__(self) -> Self:
        self._below.mkdir(exist_ok=True)
        self.directory = Path(tempfile.mkdtemp(prefix="world-", dir=self._below))
        self.runtime = Path(tempfile.mkdtemp(prefix="trims-", dir=self._sockets))
        self.store, self.socket = self.directory / "store", self.runtime / "trims.sock"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMS_", "XDG_"))}
        self.env |= {
            "TRIMS_STORE": str(self.store), "TRIMS_SOCKET": str(self.socket), "TRIMS_NO_INPUT": "1",
            "XDG_RUNTIME_DIR": str(self.runtime), "XDG_STATE_HOME": str(self.directory / "state"),
            "XDG_CACHE_HOME": str(self.directory / "cache"), "XDG_CONFIG_HOME": str(self.directory / "config"),
        }  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.socket.exists():
                self.trims("stop", "--now")
        except Failed:
            pass  # it has ended, or never began: the next line removes its rest
        finally:
            shutil.rmtree(self.directory)
            shutil.rmtree(self.runtime)

    def trims(self, *words: str) -> str:
        """Run one trims command; its standard output. Raises Failed with the last line of its complaint."""
        done = subprocess.run([TRIMS, *words], env=self.env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            raise Failed(f"trims {words[0]}: {'; '.join(lines[-3:])}")
        return done.stdout

    def json(self, *words: str) -> Any:
        """The parsed document of `trims ... --json`."""
        return json.loads(self.trims(*words, "--json"))

    def start(self) -> int:
        """Start the manager; its pid."""
        self.trims("start", "--host-budget", self.host_budget)
        return self.manager_pid()

    def manager_pid(self) -> int:
        from trims.paths import RuntimePaths
        from trims.shmindex import reader

        snapshot = reader.read(RuntimePaths(str(self.socket)).index)
        if snapshot is None or not snapshot.alive:
            raise Failed("the manager does not run")
        return int(snapshot.pid)


def private_memory(pid: int) -> int:
    """Resident bytes of a process without shared memory, from what /proc tells to everybody."""
    fields = {}
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = value.split()
    return (int(fields["VmRSS"][0]) - int(fields["RssShmem"][0])) * 1024
