"""bench workload: what it prints and writes, what it refuses, and how it ends early and goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pexpect
import pytest
from helpers import cli, leaks, pages
from helpers.models import ModelFiles
from safetensors.numpy import save_file

import trims
from trims.client import connections

MIB = 1 << 20


@pytest.fixture
def zoo(home: Path) -> Path:
    """A directory with four models of 1 MiB."""
    directory = home / "zoo"
    directory.mkdir()
    for number in range(4):
        weights = np.random.default_rng(number).random(MIB // 8)
        save_file({"w": weights}, directory / f"m{number}.safetensors")
    return directory


def done(*words: str | Path) -> str:
    """The standard output of a run that must succeed; a machine short of page cache may say so."""
    ended = cli.run(*words)
    assert ended.returncode == 0 and all("in the page cache" in line for line in ended.stderr.splitlines()), ended
    return ended.stdout


def left(home: Path) -> list[str]:
    """What a run has left in its work directory and among the files for sockets."""
    work = home / "cache" / "trims" / "bench"
    found = sorted(entry.name for entry in work.iterdir()) if work.exists() else []
    return [*found, *(p.name for p in (home / "tmp").iterdir())]


def test_a_map_is_measured_reported_and_drawn(zoo: Path, home: Path) -> None:
    pytest.importorskip("matplotlib")
    report, table, picture = home / "r.json", home / "r.csv", home / "map.svg"
    words = ("bench", "workload", "--zoo", zoo, "--share", "50%,1", "--clients", "2", "--requests", "8")
    outputs = ("-o", report, "--csv", table, "--picture", picture)
    said = done(*words, "--budget", "3MiB", *outputs)
    lines = said.splitlines()
    assert lines[0].split()[:6] == ["SHARE", "CLIENTS", "REQUESTS", "SPEEDUP", "BATCH", "PENALTY"]
    assert len([line for line in lines if re.match(r"(0\.5|1\.0) +2 +8 +[\d.]+x", line)]) == 2
    assert "clients 2" in said and "50%" in said
    document = json.loads(report.read_text())
    assert document["schema"] == "trims.workload/1" and document["partial"] is False
    assert {(c["share"], c["clients"]) for c in document["cells"]} == {(0.5, 2), (1.0, 2)}
    for cell in document["cells"]:
        assert cell["budget"] == 3 * MIB and cell["trims"]["failed"] == cell["native"]["failed"] == 0
        assert cell["speedup"] > 0 and cell["batch_ratio"] > 0
    cold = document["coldness"]
    assert cold["cache"] == "warm" and cold["most"] == 1.0 and cold["proven"] is (cold["least"] >= 0.99)
    assert len(table.read_text().splitlines()) == 3 and picture.read_text().startswith("<?xml")
    assert str(home) not in report.read_text()  # a report may be shown to anybody
    assert left(home) == ["lock"]


def test_one_side_for_a_program(zoo: Path) -> None:
    model = zoo / "m0.safetensors"
    words = ("bench", "workload", "--model", model, "--requests", "3", "--side", "trims", "--budget", "2MiB")
    (item,) = cli.items(*words, "--cache", "cold", "--rate", "200", "-q")
    assert item["trims"]["requests"] == 3 and item["native"] is None and item["speedup"] is None
    assert item["cache"] == "cold" and item["arrival"] == "poisson:rate=200" and item["rate"] == 200


def test_a_terminal_shows_what_is_under_way_and_how_much_is_left(zoo: Path) -> None:
    words = ["bench", "workload", "--model", str(zoo / "m0.safetensors"), "--requests", "5", "--budget", "2MiB"]
    child = pexpect.spawn(cli.TRIMS[0], [*cli.TRIMS[1:], *words], encoding="utf-8", timeout=60, dimensions=(24, 140))
    child.expect("cell 1 of 1, native")
    child.expect(r"\d+/13")  # three alone, five on each side
    child.expect("SHARE +CLIENTS")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_cold_is_proven_in_words(zoo: Path) -> None:
    pages.need_dropping(zoo)
    said = cli.run("bench", "workload", "--zoo", zoo, "--requests", "4", "--cache", "cold", "--budget", "3MiB")
    assert said.returncode == 0, said
    found = re.search(r"cold: before each of 20 requests ([\d.]+)% of the model's file", said.stdout)
    assert found is not None
    assert float(found[1]) == 0.0 and not said.stderr


def test_inference_both_ways(models: ModelFiles, home: Path) -> None:
    pytest.importorskip("onnxruntime")
    words = ("bench", "workload", "--model", models.onnx, "--requests", "3", "--budget", "32MiB", "--unlimited")
    (item,) = cli.items(*words, "-q")
    assert item["trims"]["failed"] == item["native"]["failed"] == 0 and item["trims"]["loads"] == 1
    assert item["unlimited"]["hits"] == 2 and item["penalty"] is not None
    assert "onnxruntime cannot" not in str(item)


def test_what_cannot_be_is_refused_before_anything_is_done(zoo: Path, home: Path) -> None:
    words = ("bench", "workload", "--zoo", zoo)
    for code, more, said in (
        (2, ("--share", "many"), "bad share 'many'"),
        (2, ("--clients", "x"), "bad number of clients"),
        (2, ("--rate", "5", "--arrival", "closed"), "exclude each other"),
        (2, ("--function", "dance"), "unknown function"),
        (2, ("--side", "left"), "unknown side"),
        (2, ("--policy", "dance"), "policy"),
        (2, ("--function", "onnxruntime"), "cannot run m"),
        (2, ("-o", home / "no" / "r.json"), "no such directory"),
        (16, ("--resume", home / "none.json"), "cannot be read"),
        (16, ("--trace-in", home / "none"), "cannot be read"),
        (20, ("--budget", "1MiB"), "cannot hold"),
    ):
        assert said in cli.fails(code, *words, "--requests", "2", *more), more
    assert left(home) in ([], ["lock"])


def test_every_phase_is_in_the_trace(zoo: Path, home: Path) -> None:
    trace = home / "t.json"
    words = ("bench", "workload", "--zoo", zoo, "--requests", "4", "--clients", "2", "--budget", "3MiB")
    cli.ok(*words, "--trace", trace, "-q")
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert {"cell 1 of 1, trims: clients", "cell 1 of 1, native: clients", "manager"} <= names
    requests = [span for span in spans if span["cat"] == "request" and "request" in span.get("args", {})]
    assert len([span for span in requests if span["args"].get("how") in ("hit", "loaded", "joined")]) >= 4
    assert {"wait", "get the model", "first result"} <= {span["name"] for span in spans}


def test_a_recorded_trace_is_replayed(zoo: Path, home: Path, manager: Any) -> None:
    recorded = home / "trace.jsonl"
    for number in range(2):
        cli.ok("import", zoo / f"m{number}.safetensors", "-q")
    recorder = subprocess.Popen([*cli.TRIMS, "trace", "record", str(recorded)], stdout=subprocess.PIPE, text=True)
    for _ in range(200):
        if recorded.exists() and recorded.stat().st_size:
            break
        leaks.wait_ended({recorder.pid}, 0.05)
    for name in ("m0", "m1", "m0"):
        trims.open(name, place="host").close()
    connections.close_idle()
    recorder.send_signal(signal.SIGINT)
    recorder.communicate(timeout=30)
    manager.stop()
    words = ("bench", "workload", "--trace-in", recorded, "--budget", "8MiB", "--clients", "1", "--side", "trims")
    (item,) = cli.items(*words, "--arrival", "closed", "-q")
    assert item["distribution"] == "trace:trace.jsonl" and item["requests"] == 3
    assert (item["trims"]["loads"], item["trims"]["hits"]) == (2, 1)


def test_ctrl_c_leaves_a_report_that_can_be_gone_on_with(zoo: Path, home: Path) -> None:
    report = home / "r.json"
    words = [
        "bench", "workload", "--zoo", str(zoo), "--share", "0.5,1", "--requests", "6", "--budget", "3MiB",
        "--start", "process",
    ]  # fmt: skip
    started = subprocess.Popen([*cli.TRIMS, *words, "-o", str(report)], stderr=subprocess.PIPE, text=True)
    for _ in range(1200):  # until the first cell is in it
        if report.exists() and json.loads(report.read_text())["cells"]:
            break
        assert leaks.wait_ended({started.pid}, 0.05), "it ended too early"
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == -signal.SIGINT
    assert "1 of 2 cells are in" in said and "--resume" in said
    partial = json.loads(report.read_text())
    assert partial["partial"] is True and len(partial["cells"]) == 1
    assert left(home) == ["lock"]
    refused = cli.fails(2, *words, "--resume", report, "--seed", "7")
    assert "seed is 0 there and 7 here" in refused
    assert json.loads(report.read_text()) == partial
    cli.ok(*words, "--resume", report, "-q")
    whole = json.loads(report.read_text())
    assert whole["partial"] is False and [c["share"] for c in whole["cells"]] == [0.5, 1.0]
    assert whole["cells"][0] == partial["cells"][0] and whole["made"] == partial["made"]


def test_failed_requests_are_told_and_make_the_code_five(zoo: Path) -> None:
    words = ("bench", "workload", "--zoo", zoo, "--requests", "3", "--side", "trims", "--timeout", "0.0001")
    done = cli.run(*words, "--budget", "8MiB")
    assert done.returncode == 5 and "it took longer than 0.0001 s" in done.stderr
    assert done.stdout.splitlines()[1].split()[-1] == "3"
