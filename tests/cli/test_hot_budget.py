"""The fast commands load little: imports and file system calls are counted, since time depends on the load."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import cli

from trims.disk import snapshot
from trims.disk.store import Store

MODULES = 110
VERSION_MODULES = 60
CALLS = 620
HEAVY = {
    "numpy",
    "h5py",
    "rich",
    "typer",
    "pydantic",
    "asyncio",
    "msgspec",
    "click",
    "torch",
    "onnxruntime",
    "filelock",
}
HOT = [
    ["ls"], ["ls", "--json"], ["ls", "alpha", "-q"], ["ps"], ["status"], ["status", "--json"], ["warm", "alpha"],
    ["pin", "alpha"], ["unpin", "alpha"], ["evict", "--all"], ["wait", "alpha", "--timeout", "1s"],
    ["exec", "--print-env", "sh", "--report", "/dev/null"],
]  # fmt: skip
_PROBE = """
import os, sys
sys.argv = ["trims", *sys.argv[2:]]
from trims_cli.__main__ import main
main()
os.write({fd}, "\\n".join(sys.modules).encode())
"""


def modules(*words: str) -> set[str]:
    """What a command has imported when it is done."""
    read, write = os.pipe()
    try:
        command = [sys.executable, "-c", _PROBE.format(fd=write), "-", *words]
        subprocess.run(command, pass_fds=[write], capture_output=True, timeout=60)
    finally:
        os.close(write)
    with open(read) as file:
        return set(file.read().split("\n"))


def settle(store: Store) -> None:
    """Bring the snapshot up to date: it distrusts directories that changed within the clock's last tick."""
    while not snapshot.current(store.paths):
        snapshot.rebuild(store.paths)


@pytest.mark.parametrize("words", HOT, ids=" ".join)
def test_hot_forms_import_little(store: Store, words: list[str]) -> None:
    settle(store)
    found = modules(*words)
    assert not found & HEAVY
    assert len(found) <= MODULES, sorted(found)


def test_version_imports_next_to_nothing() -> None:
    found = modules("--version")
    assert len(found) <= VERSION_MODULES and "importlib.metadata" not in found


@pytest.mark.parametrize("words", [["--help"], ["import", "--help"], ["top", "--help"]], ids=" ".join)
def test_help_imports_no_framework(words: list[str]) -> None:
    assert not modules(*words) & {"numpy", "h5py", "torch", "onnxruntime", "pydantic", "msgspec"}


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"], ["ps"], ["status"], ["warm", "alpha"]], ids=" ".join)
def test_hot_forms_make_few_file_system_calls(store: Store, tmp_path: Path, words: list[str]) -> None:
    settle(store)
    trace, env = tmp_path / "trace", {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = str(tmp_path / "compiled")
    for _ in range(2):  # the first run compiles
        command = ["strace", "-f", "-qq", "-e", "trace=%file", "-o", str(trace), *cli.TRIMS, *words]
        done = subprocess.run(command, env=env, capture_output=True, timeout=60)
        if b"ptrace" in done.stderr:
            pytest.skip("strace is not permitted")
    assert len(trace.read_text().splitlines()) <= CALLS
