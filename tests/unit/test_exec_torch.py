"""Unmodified programs that load torch and safetensors files: redirected they get the same bits, shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from helpers import torch_loads

import trims
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import open_store

pytestmark = pytest.mark.torch

BOOT = str(Path(trims.__file__).parent / "redirect" / "boot")


def test_every_way_to_load_gives_what_it_gives_without_trims(manager: Any, home: Path) -> None:
    torch_loads.make(home)
    store = open_store(str(manager.runtime.store))
    for path in sorted(home.glob("*.pt")) + sorted(home.glob("*.safetensors")):
        with open_source(path) as source:
            import_model(store, source, path.name.replace(".", "-"))
    report = home / "report.json"
    env = {**os.environ, "PYTHONPATH": BOOT, "TRIMS_EXEC": "redirect", "TRIMS_EXEC_REPORT": str(report)}
    program = [sys.executable, torch_loads.__file__, str(home)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 600
    loads = [json.loads(line) for line in report.read_text().splitlines()]
    counts = Counter(
        (Path(load["path"]).name, load["outcome"], load["how"]) for load in loads if load["what"] == "load"
    )
    shared = {name for name, outcome, how in counts if outcome == "redirected"}
    assert shared == {f"{name}.pt" for name in ("state", "link", "training", "old")} | {
        f"{name}.safetensors" for name in ("state", "arrays", "old")
    }
    assert {how for _, outcome, how in counts if outcome == "redirected"} <= {"hit", "loaded"}
    reasons = {Path(load["path"]).name: load["why"] for load in loads if load["what"] == "fallback"}
    assert reasons["legacy.pt"] == "it is of the format that PyTorch wrote before 1.6"
