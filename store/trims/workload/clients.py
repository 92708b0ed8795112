"""The client processes of a run, as their coordinator has them: started, listened to, ended.

Each is a process group of its own, so that Ctrl-C at a terminal reaches the coordinator alone and so that a client is
ended together with the request it has under way. The kernel ends a client whose coordinator is gone, too.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from trims.errors import TrimsError
from trims.workload.setting import Setting

START = 120.0
"""Seconds a client may take to import its libraries on a loaded machine."""
_ONE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def spec(setting: Setting, models: Sequence[Mapping[str, Any]], board: int, tickets: int) -> dict[str, Any]:
    """What every client is told. models: of each its ref, file, files (that a load reads) and function."""
    return {**setting.to_dict(), "models": list(models), "board": board, "tickets": tickets}


class ClientProcess:
    """One client. `heard` reads what it said; b"" means that it has ended."""

    def __init__(self, number: int, spec: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self.number = number
        self.ready = False
        # What its libraries print: the last of it explains its death.
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.pipe, say = os.pipe2(os.O_CLOEXEC)
        text = json.dumps({**spec, "client": number, "say": say})
        limits = dict.fromkeys(_ONE, str(spec["threads"]))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "trims.workload.function", text],
                env={**env, **limits},
                stdin=subprocess.DEVNULL,
                stdout=self._words,
                stderr=self._words,
                pass_fds=(spec["board"], spec["tickets"], say),
                start_new_session=True,
            )
        except BaseException:
            os.close(self.pipe)
            self._words.close()
            raise
        finally:
            os.close(say)

    @property
    def pid(self) -> int:
        return self._process.pid

    def heard(self) -> bytes:
        """What it said since the last time; waits for something."""
        return os.read(self.pipe, 4096)

    def kill(self) -> None:
        """End it, and the request it has under way; twice is once."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has just ended
            self._process.wait()

    def close(self) -> None:
        self.kill()
        os.close(self.pipe)
        self._words.close()

    def obituary(self) -> str:
        """Why it has ended, in words."""
        code = self._process.wait()
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 4096))
        lines = self._words.read().decode("utf-8", "replace").strip().splitlines()
        how = f"signal {-code} ended its client" if code < 0 else f"its client ended with status {code}"
        return f"{how}: {lines[-1]}" if lines and code > 0 else how


class Clients:
    """All clients of a run. A context manager: none of them, and no request of theirs, outlives it."""

    def __init__(self, count: int, spec: Mapping[str, Any], env: Mapping[str, str]) -> None:
        self._count, self._spec, self._env = count, spec, env
        self.living: dict[int, ClientProcess] = {}
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> Clients:
        try:
            for number in range(self._count):
                self.start(number)
            self._await_ready(time.monotonic() + START)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self.living.values():
            client.close()
        self.living.clear()
        self.selector.close()

    def start(self, number: int) -> None:
        client = self.living[number] = ClientProcess(number, self._spec, self._env)
        self.selector.register(client.pipe, selectors.EVENT_READ, client)

    def bury(self, client: ClientProcess) -> str:
        """Take a client that has ended out of the run; why it has."""
        client.kill()
        why = client.obituary()
        self.selector.unregister(client.pipe)
        client.close()
        del self.living[client.number]
        return why

    def _await_ready(self, deadline: float) -> None:
        while waiting := [client for client in self.living.values() if not client.ready]:
            left = deadline - time.monotonic()
            events = self.selector.select(max(0.0, left))
            if not events and left <= 0:
                raise TrimsError(
                    "the workload's clients did not start", f"{len(waiting)} were not ready in {START:g} s"
                )
            for key, _ in events:
                client: ClientProcess = key.data
                if not client.heard():
                    raise TrimsError("a client of the workload did not start", self.bury(client))
                client.ready = True
