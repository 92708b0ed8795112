"""The tests that need a GPU, as pytest runs them; over simulated GPUs a few of the contract's, to try this code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path
from typing import Any

from bench.gpu.place import Failed, Place
from bench.gpu.running import ROOT

OUT = "GPU_CHECK_OUT"
"""The environment variable with the directory that tests.xml goes to."""
_LONGEST = 300  # characters of why a test failed


def contract(place: Place) -> dict[str, Any]:
    """The driver's contract on the driver that is there."""
    return _run(place, "contract", ["tests/contract/test_driver_contract.py"], "simulated and access")


def gpu(place: Place) -> dict[str, Any]:
    """Clients and managers on the GPU."""
    return _run(place, "gpu", ["tests/gpu"], "simulated")


def _run(place: Place, name: str, paths: list[str], simulated: str) -> dict[str, Any]:
    report = Path(place.work, f"{name}.xml")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout", "60"]
    command += ["-m", "gpu"] if not place.simulated else ["-k", simulated]
    env = {name: value for name, value in place.environment().items() if name != "TRIMS_SIMULATED_GPUS"}
    done = subprocess.run(
        [*command, "--junitxml", str(report), *paths], cwd=ROOT, env=env, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace",
    )  # fmt: skip
    if not report.exists():
        raise RuntimeError(f"pytest ended with {done.returncode} and no report: {done.stdout[-500:]}")
    _keep(report, Path(os.environ[OUT], "tests.xml"))
    tests = [_test(case) for case in ET.parse(report).iter("testcase")]
    counts = dict(Counter(test["outcome"] for test in tests))
    found = {"status": done.returncode, "counts": counts, "tests": tests, "text": done.stdout.splitlines()[-40:]}
    if done.returncode not in (0, 5):  # 5: there was none
        failed = [test["name"] for test in tests if test["outcome"] == "failed"]
        print("\n".join(found["text"]))
        raise Failed(f"pytest ended with {done.returncode}, failed of {len(tests)}: {', '.join(failed)[:400]}", found)
    return found


def _test(case: ET.Element) -> dict[str, Any]:
    outcome, why = "passed", ""
    for kind, name in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        said = case.find(kind)
        if said is not None:
            outcome, why = name, (said.get("message") or "").replace("\n", " ")[:_LONGEST]
    module = (case.get("classname") or "").rpartition(".")[2]
    return {"name": f"{module}::{case.get('name')}", "outcome": outcome, "why": why,
            "seconds": float(case.get("time") or 0.0)}  # fmt: skip


def _keep(report: Path, path: Path) -> None:
    """Put a report's suites into tests.xml, in the place of those of the same tests."""
    made = ET.parse(report).getroot()
    suites = list(made) if made.tag == "testsuites" else [made]
    for suite in suites:
        suite.set("name", report.stem)
    if path.exists():
        older = [suite for suite in ET.parse(path).getroot() if suite.get("name") != report.stem]
        suites = [*older, *suites]
    root = ET.Element("testsuites")
    root.extend(suites)
    temporary = report.with_suffix(".part")
    ET.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    shutil.move(temporary, path)


ITEMS = {"contract": contract, "gpu": gpu}
SECONDS = {"contract": 100.0, "gpu": 120.0}
