"""Unmodified programs that load torch and safetensors files: redirected they get the same bits, shared."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import safetensors.numpy
from helpers import torch_loads

import trims
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import create_store, open_store

pytestmark = pytest.mark.torch

BOOT = str(Path(trims.__file__).parent / "redirect" / "boot")


def test_every_way_to_load_gives_what_it_gives_without_trims(manager: Any, home: Path) -> None:
    torch_loads.make(home)
    store = open_store(str(manager.runtime.store))
    for path in sorted(home.glob("*.pt")) + sorted(home.glob("*.safetensors")):
        with open_source(path) as source:
            import_model(store, source, path.name.replace(".", "-"))
    printed, loads = ran(home, torch_loads.__file__, str(home))
    assert int(printed) > 600
    counts = Counter(
        (Path(load["path"]).name, load["outcome"], load["how"]) for load in loads if load["what"] == "load"
    )
    shared = {name for name, outcome, how in counts if outcome == "redirected"}
    assert shared == {f"{name}.pt" for name in ("state", "link", "training", "old")} | {
        f"{name}.safetensors" for name in ("state", "arrays", "old")
    }
    assert {how for _, outcome, how in counts if outcome == "redirected"} <= {"hit", "loaded"}
    reasons = {(Path(load["path"]).name, load["why"]) for load in loads if load["what"] == "fallback"}
    assert reasons >= {
        ("legacy.pt", "it is of the format that PyTorch wrote before 1.6"),
        ("state.pt", "it is mapped so that writes go to the file"),
        ("state.safetensors", "it is opened for jax"),
    }


def test_numpy_needs_no_torch_and_native_loads_are_measured(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    path = home / "a.safetensors"
    safetensors.numpy.save_file({"x": np.arange(50000.0), "y": np.ones(3)}, path)
    with open_source(path) as source:
        import_model(create_store(str(home / "store")), source, "a")
    code = (
        "import sys, safetensors.numpy as s; a = s.load_file(sys.argv[1]); a['x'] += 1\n"
        "print(a['x'].sum(), s.load_file(sys.argv[1])['y'].sum(), 'torch' in sys.modules)"
    )
    texts, loads = zip(*(ran(home, "-c", code, str(path), how=how) for how in ("native", "redirect")), strict=True)
    assert texts[0] == texts[1] == "1250025000.0 3.0 False\n"
    native, redirected = ([load for load in part if load["what"] == "load"] for part in loads)
    assert [load["outcome"] for load in native] == ["native"] * 2 and all(load["seconds"] > 0 for load in native)
    assert [load["outcome"] for load in redirected] == ["redirected"] * 2
    assert redirected[0]["native_seconds"] == pytest.approx(native[1]["seconds"], abs=1e-5)


def ran(home: Path, *words: str, how: str = "redirect") -> tuple[str, list[dict[str, Any]]]:
    """(what a program prints, its report)."""
    report = home / f"{how}.json"
    env = {**os.environ, "PYTHONPATH": BOOT, "TRIMS_EXEC": how, "TRIMS_EXEC_REPORT": str(report)}
    done = subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout, [json.loads(line) for line in report.read_text().splitlines()]
