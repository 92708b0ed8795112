"""`trims simulate` as a person types it. Nothing runs but the command itself."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import cli

from trims.errors import TrimsError
from trims.residency.policies import POLICIES
from trims.workload import report, trace
from trims.workload.cost import ASSUMED, to_json
from trims.workload.traced import REQUEST, Trace, TracedClient, TracedModel
from trims_cli import simulating_input

FEW = ("--requests", "60")


def items(*words: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cli.ok("simulate", *words, "--json"))["items"]
    return found


def test_every_policy_stays_below_the_bound_and_is_the_same_again(runtime: object) -> None:
    words = (*FEW, "--policy", "all", "--budget", "30%", "--seed", "3")
    rows = items(*words)
    assert [row["policy"] for row in rows] == list(POLICIES)
    assert all(0 <= row["hit_rate"] <= row["bound"] and row["byte_hit_rate"] <= row["byte_bound"] for row in rows)
    assert len({row["mean"] for row in rows}) > 3
    assert rows == items(*words) != items(*words, "--seed", "4")


def test_shares_and_clients_make_one_row_each_and_the_figures_hold_together(runtime: object) -> None:
    rows = items(*FEW, "--share", "10%,0.5", "--clients", "1,3", "--native", "--cache", "cold")
    assert [(row["share"], row["clients"]) for row in rows] == [(0.1, 1), (0.1, 3), (0.5, 1), (0.5, 3)]
    assert all(row["speedup"] > 1 and row["batch_ratio"] > 1 and set(row["moved"]) == {"disk"} for row in rows)


def test_the_table_says_what_it_rests_on(runtime: object) -> None:
    done = cli.run("simulate", *FEW)
    assert done.stdout.startswith("POLICY  SHARE") and "no policy has more than" in done.stdout
    assert "assumed costs" in done.stderr
    assert cli.ok("simulate", *FEW, "-q") == "lru\n"


def test_files_are_written_whole(runtime: object, tmp_path: Path) -> None:
    kept, table = tmp_path / "r.json", tmp_path / "r.csv"
    cli.ok("simulate", *FEW, "--policy", "lru,lcu", "-o", str(kept), "--csv", str(table), "-q")
    read = report.from_json(kept.read_text())
    assert not read.partial and [cell.policy for cell in read.cells] == ["lru", "lfu"]
    assert all(cell.simulated for cell in read.cells) and len(read.curves) == 2
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == 2
    assert "r.json failed" in cli.fails(1, "simulate", *FEW, "-o", str(tmp_path / "no" / "r.json"))


def test_an_interrupted_run_leaves_the_cells_it_has(runtime: object, tmp_path: Path) -> None:
    kept = tmp_path / "r.json"
    words = ["simulate", "--requests", "30", "--clients", "1,2", "--policy", "lru", "-o", str(kept)]
    stop = (
        "import os, signal, sys; from trims.workload import study; from trims_cli.__main__ import main\n"
        "run = study.Case.run\n"
        "def second(self, *args, **named):\n"
        "    if self.stream.clients == 2: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return run(self, *args, **named)\n"
        "study.Case.run = second; sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", stop, *words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "") and "Traceback" not in done.stderr
    read = report.from_json(kept.read_text())
    assert read.partial and [cell.clients for cell in read.cells] == [1]


def test_a_recorded_trace_is_asked_again(runtime: object, tmp_path: Path) -> None:
    import numpy as np

    asked = np.zeros(4, REQUEST)
    asked["at"], asked["model"], asked["held"] = [0, 10, 20, 30], [0, 1, 0, 0], 0.5
    models = tuple(TracedModel(name, name * 64, 1 << 20, 3) for name in "ab")
    path = tmp_path / "t.trace"
    with path.open("wb") as file:
        trace.write(Trace("2026-01-01T00:00:00Z", models, (TracedClient(1),), asked, 40.0), file)
    (row,) = items("--trace-in", str(path), "--budget", "100%")
    assert (row["requests"], row["hit_rate"], row["loads"]) == (4, 0.5, 2) and row["seconds"] > 30
    (closed,) = items("--trace-in", str(path), "--clients", "2", "--budget", "100%")
    assert closed["seconds"] < 5
    (half,) = items("--trace-in", str(path))
    assert half["budget"] == 1 << 20, "half of all models, where nothing was recorded"
    for budgets, budget in (({"host": 5 << 20}, 5 << 20), ({"host": "much"}, 1 << 20), ("none", 1 << 20)):
        with path.open("wb") as file:
            about = {"budgets": budgets}
            trace.write(Trace("2026-01-01T00:00:00Z", models, (TracedClient(1),), asked, 40.0, about=about), file)
        (row,) = items("--trace-in", str(path))
        assert row["budget"] == budget, "what the recorded manager had"


def test_a_cost_file_sets_the_times(runtime: object, tmp_path: Path) -> None:
    from dataclasses import replace

    path = tmp_path / "cost.json"
    path.write_text(to_json(replace(ASSUMED, fork=1.0, measured=True)))
    (row,) = items(*FEW, "--cost", str(path))
    assert row["p50"] > 1 and row["measured"]


def test_a_fleet_has_a_row_a_tier(runtime: object) -> None:
    rows = items(*FEW, "--nodes", "5", "--routing", "all", "--clients", "5", "--models", "20", "--disk", "50%")
    assert [row["tier"] for row in rows[:4]] == ["host", "joined", "disk", "remote"] and len(rows) == 12
    assert {row["routing"] for row in rows} == {"random", "hash", "warm-first"}
    assert sum(row["requests"] for row in rows[:4]) == 60
    assert "of 5 machines asked" in cli.run("simulate", *FEW, "--nodes", "5").stdout


def test_a_fleet_has_the_disks_and_the_link_that_were_asked_for(runtime: object) -> None:
    words = (*FEW, "--nodes", "3", "--routing", "hash,hash:k=2", "--models", "20")
    fast, slow, filled = (
        items(*words, *more)
        for more in (("--remote-bandwidth", "10GiB", "--egress", "100GiB/s"), ("--egress", "10MiB"), ("--disk-filled",))
    )
    assert [row["routing"] for row in fast[::4]] == ["hash", "hash:k=2"]
    assert fast[0]["replicas_max"] == 1 and fast[0]["egress"] > 0 and fast[0]["busy_imbalance"] >= 1
    assert slow[0]["fleet_mean"] > 5 * fast[0]["fleet_mean"] and filled[0]["egress"] == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--policy", "best"), 2, "no policy 'best'"),
        (("--cost", "/no/such/file"), 16, "cannot be read"),
        (("--nodes", "2", "--native"), 2, "no native side"),
        (("--nodes", "0"), 2, "1 to 1000 can"),
        (("--nodes", "2", "--routing", "hash,nearest"), 2, "unknown routing 'nearest'"),
        (("--nodes", "2", "--egress", "0"), 2, "nothing would ever arrive"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(
    runtime: object, words: tuple[str, ...], code: int, said: str
) -> None:
    assert said in cli.fails(code, "simulate", *FEW, *words)


def asked(**changes: Any) -> simulating_input.Workload:
    usual = {
        "zoo": None, "models": None, "median": "1MiB", "sigma": 1.0, "trace_in": None, "distribution": "pareto",
        "share": "100%", "clients": "1", "requests": 10, "rate": None, "shift_every": 0, "seed": 0,
    }  # fmt: skip
    return simulating_input.Workload(**{**usual, **changes})


def machine(**changes: Any) -> simulating_input.MachineAsked:
    usual = {"budget": "50%", "policy": "lru", "min_resident": "0", "ttl": "1h", "cache": "warm", "cost": None}
    return simulating_input.MachineAsked(**{**usual, "native": False, **changes})


@pytest.mark.parametrize(
    ("workload", "served", "said"),
    [
        ({"distribution": "normal"}, {}, "unknown distribution"),
        ({"share": "2"}, {}, "share 2"),
        ({"clients": "x"}, {}, "bad clients"),
        ({"clients": "0"}, {}, "clients 0"),
        ({"models": 0}, {}, "--models 0"),
        ({"models": 2, "seed": -1}, {}, "--seed -1"),
        ({"models": 2, "sigma": float("nan")}, {}, "--sigma nan"),
        ({"share": "abc"}, {}, "10%,50%,100%"),
        ({}, {"cache": "tepid"}, "known: warm, cold"),
        ({"models": 2, "zoo": "paper"}, {}, "exclude"),
        ({"zoo": "berlin"}, {}, "no zoo"),
        ({"rate": "fast"}, {}, "unknown arrival"),
        ({"trace_in": "/no/such/file"}, {}, "cannot be read"),
        ({}, {"budget": "much"}, "bad size"),
        ({}, {"ttl": "soon"}, "bad duration"),
    ],
)
def test_options_that_cannot_be_are_refused(workload: dict[str, Any], served: dict[str, Any], said: str) -> None:
    with pytest.raises(TrimsError, match=said):
        list(simulating_input.read_cases(asked(**workload), machine(**served), ASSUMED))


def test_made_up_sizes_are_log_normal_and_the_same_again() -> None:
    import numpy as np

    models = simulating_input.made_up(4000, 1 << 20, 0.5, 7)
    logs = np.log([model.nbytes for model in models])
    assert models == simulating_input.made_up(4000, 1 << 20, 0.5, 7)
    assert abs(np.median(logs) - np.log(1 << 20)) < 0.03 and abs(logs.std() - 0.5) < 0.02


def test_a_number_is_a_rate_and_words_are_an_arrival() -> None:
    assert str(simulating_input.read_arrival("20")) == "poisson:rate=20"
    assert simulating_input.read_arrival("bursty:rate=5").name == "bursty"
