"""Containers as engines make them: namespaces of their own, a root with Python in it, and one shared directory."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import trims

INSIDE = "/run/trims"
"""Where a container finds the directory with the socket."""
NAMESPACES = ("user", "pid", "mnt", "net", "ipc", "uts")
_INIT = str(Path(__file__).with_name("container_init.py"))
_SOURCES = str(Path(trims.__file__).resolve().parent.parent)


class Container:
    """`python -c PROGRAM` as the first process of a container, with the directory `runtime` as /run/trims.

    pid: its number outside. uid: who the container's user 0 is outside. shared: more directories (outside: inside).
    serves: it may write to these, and has /proc. Lines go to it by `say`, come by `hear`. Leaving the `with` ends it.
    """

    def __init__(
        self, program: str, runtime: Path, uid: int | None = None, shared: dict[str, str] | None = None,
        serves: bool = False, cgroup: Path | None = None, **environment: str,
    ) -> None:  # fmt: skip
        self._root = tempfile.mkdtemp(prefix="t", dir="/tmp")
        os.chmod(self._root, 0o755)
        plan = {
            "root": self._root, "readonly": _python(), "shared": {str(runtime): INSIDE, **(shared or {})},
            "serves": serves, "command": [sys.executable, "-c", program],
            "environment": {"TRIMS_SOCKET": f"{INSIDE}/trims.sock", "PYTHONPATH": _SOURCES, **environment},
        }  # fmt: skip
        self._outer = subprocess.Popen(
            [sys.executable, "-S", "-E", _INIT, json.dumps(plan)], bufsize=0, text=False,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            if self.hear() != "unshared":
                raise OSError(self.errors() or "no namespaces can be made")
            if cgroup is not None:
                (cgroup / "cgroup.procs").write_text(f"{self._outer.pid}\n")
            _map_users(self._outer.pid, os.geteuid() if uid is None else uid, os.getegid() if uid is None else uid)
            self.say()
            self.pid = int(self.hear() or 0)
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Container:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        self._end()

    def say(self, line: str = "") -> None:
        assert self._outer.stdin is not None
        self._outer.stdin.write(f"{line}\n".encode())

    def end(self) -> None:
        """Say no more: its standard input ends."""
        assert self._outer.stdin is not None
        self._outer.stdin.close()

    def hear(self) -> str:
        """The next line; "" at the end."""
        assert self._outer.stdout is not None
        return self._outer.stdout.readline().decode().strip()

    def hear_json(self) -> dict[str, object]:
        line = self.hear()
        if not line:
            raise AssertionError(self.errors())
        found: dict[str, object] = json.loads(line)
        return found

    def errors(self) -> str:
        """What it said on standard error, when it has ended."""
        assert self._outer.stderr is not None
        return self._outer.stderr.read().decode()

    def kill(self) -> None:
        """End the whole container as its engine would: the kernel takes all others with the first process."""
        if self._outer.poll() is None:
            with suppress(ProcessLookupError):  # it ended a moment ago
                os.kill(self.pid, signal.SIGKILL)
            self._outer.wait(20)

    def wait(self) -> int:
        return self._outer.wait(20)

    def _end(self) -> None:
        self._outer.kill()
        self._outer.wait(20)
        for pipe in (self._outer.stdin, self._outer.stdout, self._outer.stderr):
            assert pipe is not None
            pipe.close()
        os.rmdir(self._root)


def _map_users(pid: int, uid: int, gid: int) -> None:
    """Make the container's root the user `uid` of outside, and nobody else anybody."""
    Path(f"/proc/{pid}/setgroups").write_text("deny")
    Path(f"/proc/{pid}/uid_map").write_text(f"0 {uid} 1\n")
    Path(f"/proc/{pid}/gid_map").write_text(f"0 {gid} 1\n")


def _python() -> list[str]:
    """The directories that this Python and trims need, each once; links as links."""
    paths = {"/usr", "/lib", "/lib64", sys.prefix, sys.base_prefix, _SOURCES}
    there = sorted(path for path in paths if os.path.exists(path))
    return [p for p in there if not any(p.startswith(f"{other}/") for other in there)]


@functools.cache
def cannot() -> str:
    """Why no container can be made here; "" when one can."""
    try:
        with tempfile.TemporaryDirectory() as runtime:
            with Container("print('here', flush=True)", Path(runtime)) as container:
                return "" if container.hear() == "here" else container.errors() or "it did not start"
    except OSError as error:
        return str(error)
