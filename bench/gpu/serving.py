"""A store, a manager with the GPU, and clients in processes of their own: what is measured through trims."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import zoo
from bench.gpu.place import MIB, Place
from bench.gpu.running import ROOT
from bench.world import World
from trims.client.control import Control
from trims.devices import drivers
from trims.paths import RuntimePaths
from trims.places import gpu_place
from trims.shmindex import reader


class GpuWorld(World):
    """A world whose manager has one GPU. Its processes see that GPU as number 0."""

    def __init__(self, place: Place, host_budget: int, gpu_budget: int | None = None, *words: str) -> None:
        """Budgets in bytes; by default that of a GPU is the usual one. words: more of `trims start`."""
        super().__init__(str(host_budget), Path(place.work), place.sockets)
        self.place, self.gpu = place, gpu_place(place.uuid)
        self._words = ["--gpu", "0", *words]
        self._words += [] if gpu_budget is None else ["--gpu-budget", str(gpu_budget)]

    def __enter__(self) -> GpuWorld:
        super().__enter__()
        self.env |= {**self.place.environment(), **self.env, "TRIMS_SPARE": "0"}
        self.trims("init")
        return self

    def start(self) -> int:
        self.trims("start", "--host-budget", self.host_budget, *self._words)
        return self.manager_pid()

    def put(self, name: str, nbytes: int, seed: int = 0) -> Path:
        """Import a model of random numbers; its file."""
        path = zoo.synthetic(nbytes, seed=seed)
        self.trims("import", str(path), "--name", name)
        return path

    def request(self, t: str, **fields: Any) -> list[dict[str, Any]]:
        """Ask the manager on a connection of its own; raises its refusal."""
        with Control([str(self.socket)]) as control:
            return control.finish([control.begin(t, **fields)], 200.0)[1]  # `wait` may be a field

    def warm(self, ref: str, place: str = "") -> float:
        """Make resident, by default on the GPU; the seconds that took the manager, 0 when it was."""
        (item,) = self.request("warm", ref=ref, place=place or self.gpu, timeout=200.0)
        return float(item["seconds"]) if item["outcome"] != "already" else 0.0

    def evict(self, ref: str, place: str = "", **fields: Any) -> dict[str, Any]:
        (item,) = self.request("evict", ref=ref, place=place or self.gpu, **fields)
        return item

    def about(self) -> dict[str, Any]:
        """What a status says of the GPU: total, used, others, worker..."""
        found: dict[str, Any] = self.request("status")[0]["gpus"][self.gpu]
        return found

    def used(self) -> int:
        """Bytes of the GPU that anybody has. Opens no context."""
        return int(drivers.find(self.env).usage(self.place.uuid).used)

    def leases(self) -> int:
        """How many leases the index tells of, on any place."""
        snapshot = reader.read(RuntimePaths(str(self.socket)).index)
        return sum(row.leases for row in snapshot.residencies) if snapshot is not None else 0


@contextmanager
def serving(place: Place, nbytes: int, budget: int | None = None) -> Iterator[GpuWorld]:
    """A world whose manager has the model `m` on its GPU."""
    with GpuWorld(place, budget or 2 * nbytes + 64 * MIB) as world:
        world.put("m", nbytes)
        world.start()
        world.warm("m")
        yield world


class Client:
    """A process with an own Python, driven order by order (bench.gpu.client). Leaving the `with` kills it."""

    def __init__(self, env: dict[str, str], *imports: str) -> None:
        """imports: modules that it imports before anything is measured."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.gpu.client", *imports], env=env, cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.hear()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, do: str, **fields: Any) -> dict[str, Any]:
        """Have something done. Raises RuntimeError with what it failed for."""
        self.tell(do, **fields)
        return self.hear()

    def tell(self, do: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **fields}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"a client ended with status {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise RuntimeError(found["failed"])
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def ended(pid: int) -> bool:
    """Whether a process is no more, or only waits for its parent to hear so."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def kill(pid: int) -> None:
    os.kill(pid, 9)
