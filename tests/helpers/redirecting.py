"""Redirected programs: archives that a store knows, `trims exec` as a person runs it, and what its report says."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import cli
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store
from trims.redirect import deciding, environment, report

LOADS = """
import sys, numpy
for path in sys.argv[1:]:
    print(f"{float(numpy.load(path)['w'].sum())}\\n", end="")  # in one write: others print, too
"""
"""A program that loads archives and prints a number of each."""


def archive(path: Path, seed: int = 0, n: int = 40_000) -> Path:
    """An archive whose array `w` is too large to be copied, and has a sum of its own."""
    rng = np.random.default_rng(seed)
    np.savez(path, w=rng.integers(0, 9, n).astype(np.float32), b=np.arange(4.0), f=np.asfortranarray(np.eye(3)))
    return path


def bring(root: Path, *paths: Path) -> Store:
    """The store at `root` with these files in it, each by its stem."""
    store = create_store(str(root), if_missing=True)
    for path in paths:
        with open_source(str(path)) as source:
            import_model(store, source, path.stem)
    return store


def total(path: Path) -> str:
    """What the program LOADS prints of an archive."""
    with np.load(path) as found:
        return str(float(found["w"].sum()))


def execute(*words: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`trims exec WORDS`."""
    return cli.run("exec", *words, **options)


def lines(path: Path, what: str | None = None) -> list[dict[str, Any]]:
    """The lines of a report, in order; what: only those of this kind."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if what in (None, line["what"])]


def outcomes(path: Path) -> list[str]:
    """What became of each load in a report: redirected, native or fallback."""
    return ["fallback" if line["what"] == "fallback" else line["outcome"] for line in lines(path) if "outcome" in line]


def here(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Have this process decide as one that was started with these variables."""
    monkeypatch.setattr(environment, "_wishes", environment.Wishes(variables))
    monkeypatch.setattr(deciding, "_sources", None)
    monkeypatch.setattr(report, "_totals", report.Totals(os.getpid()))
    monkeypatch.setattr(report, "_said", set())
