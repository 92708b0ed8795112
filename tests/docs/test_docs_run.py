"""The pages under docs run as printed: their programs are saved, their commands typed, what they print is compared."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import capabilities, documents

ROOT = Path(__file__).parents[2]
MARK = "-- next command --"

# What the programs of a page import, beside trims.
NEEDS = {
    "numpy": [],
    "jax": ["jax"],
    "onnxruntime": ["onnxruntime"],
    "pytorch": ["torch"],
    "safetensors": ["safetensors"],
    "transformers": ["torch", "transformers"],
    "exec": ["onnxruntime", "safetensors"],
}
PAGES = sorted((ROOT / "docs" / "frameworks").glob("*.md"))


@pytest.fixture
def shell(runtime: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to type in, with `python` and `trims` those under test, and places of its own."""
    bin = home / "bin"
    bin.mkdir()
    (bin / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    code = "import sys; from trims_cli.__main__ import main; sys.exit(main())"
    (bin / "trims").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n')
    for path in bin.iterdir():
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # what the pages say is of the CPU
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a directory that is missing is no reason to ask a hub
    directory = home / "page"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in PAGES])
def test_a_page_runs_as_printed(path: Path, shell: Path) -> None:
    missing = [name for name in NEEDS[path.stem] if not capabilities.has_module(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed")
    page = documents.parse(path.read_text())
    assert page.commands, "a page without a program that runs"
    done = subprocess.run(
        ["bash", "-c", page.script(MARK)],
        cwd=shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
    )
    before, *printed = done.stdout.split(MARK + "\n")
    assert not before and len(printed) == len(page.commands), done.stdout
    for command, text in zip(page.commands, printed, strict=True):
        wrong = documents.differs(command.expected, text.splitlines())
        assert not wrong, f"$ {command.line}\n{wrong}"


def test_every_framework_has_a_page() -> None:
    assert {path.stem for path in PAGES} == set(NEEDS)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (["SIZE  64.0MiB in 0.13s"], ["SIZE 1.5GiB  in 12s"], True),
        (["made store ... on ..., codec none"], ["made store /tmp/x on tmpfs, codec none"], True),
        (["a", "...", "z"], ["a", "b 1", "c", "z"], True),
        (["same: True"], ["same: False"], False),
        (["one"], ["one", "two"], False),
        (["one"], [], False),
        (["id 5f878646ab91"], ["id abcdef012345"], True),
        (["exit code 125"], ["exit code 1"], False),
        (["exit code 125"], ["exit code 125"], True),
    ],
)
def test_what_may_differ_and_what_may_not(expected: list[str], printed: list[str], same: bool) -> None:
    assert (documents.differs(expected, printed) == "") is same
