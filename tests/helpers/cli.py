"""Running the command line as a person does: a process of its own, its two outputs, its exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from helpers import sources
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store

TRIMS = [sys.executable, "-c", "import sys; from trims_cli.__main__ import main; sys.exit(main())"]


def run(
    *words: str | bytes | Path, env: dict[str, str] | None = None, input: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """`trims WORDS`, without a terminal."""
    return subprocess.run(
        [*TRIMS, *words],
        env={**os.environ, **(env or {})},
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=100,
        cwd=cwd,
    )


def ok(*words: str | Path, **options: Any) -> str:
    """The standard output of a command that must succeed in silence."""
    done = run(*words, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def items(*words: str | Path, **options: Any) -> list[dict[str, Any]]:
    """The items of a command's JSON document."""
    found: list[dict[str, Any]] = json.loads(ok(*words, "--json", **options))["items"]
    return found


def fails(code: int, *words: str | bytes | Path, **options: Any) -> str:
    """The one line on standard error of a command that must fail with `code`."""
    done = run(*words, **options)
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("trims: "), done.stderr
    return lines[0]


def error(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The error object that `--json` adds as the last line of standard error."""
    found: dict[str, Any] = json.loads(done.stderr.splitlines()[-1])["error"]
    assert found["exit"] == done.returncode
    return found


def fill(root: Path, **models: dict[str, np.ndarray[Any, Any]]) -> Store:
    """A store with these models in it, made at once."""
    store = create_store(str(root), if_missing=True)
    for name, arrays in models.items():
        with sources.source(arrays) as source:
            import_model(store, source, name)
    return store


def small(seed: int, n: int = 8) -> dict[str, np.ndarray[Any, Any]]:
    return {"layer.weight": sources.numbers(seed, n, 4), "layer.bias": sources.numbers(seed + 1, n)}
