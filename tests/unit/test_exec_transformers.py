"""transformers over shared weights: from_pretrained redirected, and from_trims, each the same model bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import capabilities

import trims

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(not capabilities.has_module("transformers"), reason="transformers is not installed"),
]

TESTS = Path(__file__).parents[1]
BOOT = str(Path(trims.__file__).parent / "redirect" / "boot")


def test_models_are_the_same_and_shared(home: Path) -> None:
    report = home / "report.json"
    env = {**os.environ, "TRIMS_STORE": str(home / "store"), "TRIMS_SOCKET": str(home / "none.sock")}
    env |= {"PYTHONPATH": os.pathsep.join([BOOT, str(TESTS)]), "TRIMS_EXEC": "redirect"}
    env["TRIMS_EXEC_REPORT"] = str(report)
    program = [sys.executable, str(TESTS / "helpers/transformers_loads.py"), str(home)]
    done = subprocess.run(program, env=env, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stderr
    shares = json.loads(done.stdout)
    assert len(shares) == 6 and set(shares.values()) == {1.0}, shares
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert {line["outcome"] for line in lines if line["what"] == "load"} == {"redirected"}
    assert not [line for line in lines if line["what"] == "fallback"]
