"""For service managers and monitoring: units that systemd accepts, metrics that a parser accepts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import cli

from trims.disk.store import Store
from trims_cli import prometheus

NUMBER = r"-?\d+(\.\d+)?(e[+-]?\d+)?"
SAMPLE = re.compile(
    r'(trims_[a-z_]+)(\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\})? (' + NUMBER + ")"
)


def metrics(text: str) -> dict[str, float]:
    """Every sample; fails for a line that is none, or one whose metric was not declared."""
    found, declared = {}, dict[str, str]()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in declared and kind in ("gauge", "counter")
            assert (kind == "counter") == name.endswith("_total")
            declared[name] = kind
            continue
        match = SAMPLE.fullmatch(line)
        assert match and match[1] in declared, line
        found[match[1] + (match[2] or "")] = float(match[3])
    return found


def test_metrics_of_a_manager(store: Store, manager) -> None:
    cli.ok("warm", "alpha")
    found = metrics(cli.ok("status", "--prometheus"))
    assert found["trims_up"] == 1 and found["trims_leases"] == 0
    assert found['trims_place_budget_bytes{place="host"}'] == 64 << 20
    assert found['trims_residencies{place="host",state="resident"}'] == 1
    assert found["trims_loads_total"] == 1 and found["trims_loaded_bytes_total"] > 0
    assert found["trims_uptime_seconds"] >= 0


def test_metrics_without_a_manager(store: Store) -> None:
    assert metrics(cli.ok("status", "--prometheus")) == {"trims_up": 0}


def test_labels_are_escaped() -> None:
    assert prometheus._labels(a='x"\\\n', b="\udcff") == '{a="x\\"\\\\\\n",b="\\\\udcff"}'


def units(text: str) -> dict[str, str]:
    service, socket = text.split("# trims.socket:")
    return {"trims.service": service, "trims.socket": "# trims.socket:" + socket}


def test_the_socket_unit_names_the_socket(store: Store, runtime) -> None:
    found = units(cli.ok("start", "--print-unit"))
    assert f"ListenStream={runtime.socket}\n" in found["trims.socket"]
    assert "[Socket]" not in found["trims.service"] and "ExecStart" not in found["trims.socket"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(store: Store, tmp_path: Path) -> None:
    program = tmp_path / "bin" / "trims"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = cli.ok(
        "start", "--print-unit", "--host-budget", "20%", env={"PATH": f"{program.parent}:{os.environ['PATH']}"}
    )
    paths = []
    for name, unit in units(text).items():
        paths.append(tmp_path / name)
        paths[-1].write_text(unit)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", "--man=no", *paths], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
