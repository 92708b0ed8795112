"""What may import what, and what an import may cost. The full contracts are checked by `scripts/check`."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted([*(ROOT / "store" / "trims").rglob("*.py"), *(ROOT / "trims_cli").rglob("*.py")])

# Loaded by the fastest commands; each of these costs milliseconds that such a command does not have.
HOT = ["errors", "units", "refs", "places", "paths", "config", "linux", "linux.flock", "linux.process"]
HEAVY = {
    "dataclasses", "typing", "enum", "re", "pathlib", "json", "msgspec", "numpy", "h5py", "logging", "subprocess",
    "tempfile", "contextlib", "socket", "asyncio", "inspect", "typer", "rich",
}  # fmt: skip


def modules_after(code: str) -> set[str]:
    run = [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


@pytest.fixture(scope="module")
def bare() -> set[str]:
    return modules_after("pass")


def test_import_trims_loads_nothing_heavy(bare: set[str]) -> None:
    loaded = modules_after("import trims") - bare
    assert {name for name in loaded if not name.startswith(("trims", "__"))} == set()


@pytest.mark.parametrize("module", HOT)
def test_modules_of_the_fast_commands_are_light(bare: set[str], module: str) -> None:
    loaded = modules_after(f"import trims.{module}") - bare
    assert loaded & HEAVY == set()


def test_a_client_of_a_manager_is_light() -> None:
    """It is imported within the first load of a program under `trims exec`."""
    before = modules_after("import numpy")
    loaded = modules_after("import numpy, trims.redirect.opening, trims.client.handle, trims.disk.sources") - before
    assert loaded & {"dataclasses", "socket", "asyncio", "tempfile", "subprocess", "trims.manifest"} == set()


def test_a_client_without_a_gpu_loads_nothing_for_one() -> None:
    loaded = modules_after("import trims.client.handle, trims.client.choosing, trims.integrations.numpy")
    found = {name for name in loaded if name.startswith(("trims.client.", "trims.devices"))}
    assert {name for name in found if "gpu" in name or "device" in name or "capsules" in name} == set()


def test_no_second_copy_of_the_library_is_named() -> None:
    """With the repository on sys.path `store.trims` would import, as a second set of the same classes."""
    for path in [*SOURCES, *(ROOT / "tests").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any(name.split(".")[0] == "store" for name in names), path


def functions(path: Path) -> list[tuple[str, int]]:
    """(name, lines without docstring) of every function of a module."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            found.append((node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 500
    assert ast.get_docstring(ast.parse(text)), "a module says what it is"
    long = [(name, lines) for name, lines in functions(path) if lines > 40]
    assert long == []
