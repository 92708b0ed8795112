"""start, stop, restart, status, logs, warm, pin, unpin, evict, wait, ps: against a real manager."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import cli, leaks

import trims
from trims.client import connections
from trims.disk.store import Store


@pytest.fixture
def running(store: Store) -> Iterator[Store]:
    """The store in effect, with a manager started by the command line."""
    cli.ok("start", "--host-budget", "1MiB", env={"TRIMS_SPARE": "0"})
    yield store
    connections.close_idle()
    cli.run("stop", "--now")


def normal(item: dict[str, Any], **replaced: str) -> dict[str, Any]:
    """An item with ids, times and durations replaced, after a look at their kinds."""
    kinds: dict[str, type | tuple[type, ...]] = {"id": str, "seconds": float, "age": float, "load_seconds": float}
    for key, kind in kinds.items():
        assert key not in item or isinstance(item[key], kind), key
    for key in ("since", "used", "started"):
        assert key not in item or re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", item[key]), key
    names = (*kinds, "since", "used", "started")
    return {key: f"<{key}>" if key in names else value for key, value in item.items()} | replaced


def test_start_status_stop(store: Store) -> None:
    (item,) = cli.items("start", "--host-budget", "1MiB", env={"TRIMS_SPARE": "0"})
    try:
        assert item["outcome"] == "started" and item["store"] == store.root
        assert cli.items("start")[0]["outcome"] == "already" and cli.items("start")[0]["pid"] == item["pid"]
        (status,) = cli.items("status")
        assert status["state"] == "running" and status["pid"] == item["pid"] and status["manager"] is None
        assert status["places"] == [
            {"place": "host", "budget": 1 << 20, "used": 0, "pinned": 0, "leased": 0, "idle": 0, "spare": 0,
             "reserved": 0, "free": 1 << 20}
        ]  # fmt: skip
        assert cli.items("status", "-v")[0]["manager"]["policy"] == "gdsf"
        assert f"process {item['pid']}" in cli.ok("status")
        assert cli.ok("status", "--check") == ""
        assert any("ready" in line for line in cli.ok("logs").splitlines())
        running = {row["key"]: row["running"] for row in cli.items("config")}
        assert running["budget.host"] == "1.0MiB" and running["store.path"] == store.root
    finally:
        (stopped,) = cli.items("stop")
    assert stopped == {"pid": item["pid"], "outcome": "stopped", "leases": 0}
    assert cli.items("stop")[0]["outcome"] == "not-running"
    assert cli.run("status").returncode == 3


def test_bad_settings_are_found_before_anything_starts(store: Store) -> None:
    for flags in (["--host-budget", "lots"], ["--ttl", "soon"], ["--idle-exit", "x"]):
        assert "bad" in cli.fails(2, "start", *flags)
    assert cli.run("status").returncode == 3


def test_a_unit_is_only_printed(store: Store) -> None:
    text = cli.ok("start", "--print-unit", "--host-budget", "20%", "--store", "/with space")
    assert "ExecStart=" in text and '"/with space"' in text and '--host-budget "20%%"' in text
    assert "Type=notify" in text and cli.run("status").returncode == 3


def test_warm_and_ls_and_ps(running: Store) -> None:
    (item,) = cli.items("warm", "alpha")
    assert normal(item) == {
        "name": "alpha:latest", "id": "<id>", "variant": "raw", "place": "host", "nbytes": 4096, "outcome": "warmed",
        "seconds": "<seconds>", "victims": [],
    }  # fmt: skip
    assert cli.items("warm", "alpha")[0]["outcome"] == "already"
    listed = {row["name"]: row for row in cli.items("ls")}
    assert listed["alpha:latest"]["resident"] == ["host"] and listed["beta:latest"]["resident"] == []
    assert [row["name"] for row in cli.items("ls", "--resident")] == ["alpha:latest"]
    assert [row["name"] for row in cli.items("ls", "--filter", "resident=host")] == ["alpha:latest"]
    (row,) = cli.items("ps")
    assert normal(row) == {
        "model": "alpha:latest", "id": "<id>", "variant": "raw", "place": "host", "nbytes": 4096, "state": "resident",
        "done": 4096, "pid": None, "uid": None, "user": None, "job": None, "container": None, "since": "<since>",
        "age": "<age>", "ttl": None, "pins": 0, "hits": 0, "used": "<used>", "load_seconds": "<load_seconds>",
    }  # fmt: skip
    assert len(cli.items("warm", "*a")) == 3 and len(cli.items("ps")) == 3
    assert cli.items("show", "alpha")[0]["resident"][0]["place"] == "host"
    rows = {row["what"]: row for row in cli.items("df")}
    assert rows["host"]["count"] == 3


def test_several_targets_are_all_tried(running: Store) -> None:
    done = cli.run("warm", "nope", "alpha", "--json")
    assert done.returncode == 5 and [item["name"] for item in json.loads(done.stdout)["items"]] == ["alpha:latest"]
    assert cli.error(done)["details"]["failures"][0]["code"] == "no-such-model"
    done = cli.run("warm", "nope", "nada")
    assert done.returncode == 10 and done.stdout == ""
    cli.fails(10, "warm", "no*")
    cli.fails(2, "warm", "../x")


def test_ttl_shows_what_is_left(running: Store) -> None:
    cli.ok("warm", "alpha", "--ttl", "1h")
    ttl = cli.items("ps")[0]["ttl"]
    assert 3500 < ttl <= 3600


def test_ps_shows_who_uses_what(running: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    with trims.open("alpha"), trims.open("beta"):
        rows = cli.items("ps")
        assert [(row["model"], row["pid"], row["uid"]) for row in rows] == [
            ("alpha:latest", os.getpid(), os.getuid()), ("beta:latest", os.getpid(), os.getuid())
        ]  # fmt: skip
        assert cli.ok("ps", "-q").split() == [str(os.getpid())] * 2
        assert len(cli.items("ps", "beta")) == 1 and len(cli.items("ps", str(os.getpid()))) == 2
        assert cli.items("ps", "--user", "nobody-at-all") == []
        assert len(cli.items("ps", "--user", str(os.getuid()))) == 2
        assert cli.ok("ps", "--columns", "pid,model", "--no-header").split()[:2] == [str(os.getpid()), "alpha:latest"]
        cli.fails(10, "ps", "gamma")
        frame = cli.ok("top", "--once")
        assert str(os.getpid()) in frame and "alpha:latest" in frame


def test_evict(running: Store) -> None:
    cli.ok("warm", "alpha", "beta", "gamma")
    assert cli.items("evict", "alpha", "-n")[0]["outcome"] == "would-evict"
    assert [item["outcome"] for item in cli.items("evict", "alpha")] == ["evicted"]
    assert [item["outcome"] for item in cli.items("evict", "alpha")] == ["absent"]
    with trims.open("beta"):
        line = cli.fails(21, "evict", "beta", "--timeout", "1s")
        assert str(os.getpid()) in line
        (item,) = cli.items("evict", "beta", "--force")
        assert item["outcome"] == "doomed" and [h["pid"] for h in item["holders"]] == [os.getpid()]
        assert cli.items("ps")[0]["state"] == "doomed"
    cli.items("wait", "beta", "--for", "gone")
    assert [item["name"] for item in cli.items("evict", "--all")] == ["gamma:latest"]
    cli.fails(2, "evict")
    cli.fails(2, "evict", "alpha", "--all")
    cli.fails(20, "evict", "--until-free", "2MiB")


def test_pins(running: Store) -> None:
    cli.ok("pin", "alpha", "--reason", "a test", "--owner", "me", "--for", "1h")
    assert cli.items("ls", "alpha")[0]["pins"] == 1
    assert "me" in cli.fails(22, "evict", "alpha")
    assert cli.fails(22, "rm", "alpha")
    assert cli.items("unpin", "--mine") == []
    assert [(item["name"], item["owner"]) for item in cli.items("unpin", "alpha")] == [("alpha:latest", "me")]
    cli.ok("warm", "beta", "--pin")
    assert [item["name"] for item in cli.items("unpin", "--mine")] == ["beta:latest"]
    cli.fails(2, "unpin")


def test_rm_asks_the_manager(running: Store) -> None:
    with trims.open("beta"):
        cli.fails(21, "rm", "beta")
        cli.fails(21, "rm", "beta", "-n")
        assert len(cli.items("ls", "beta")) == 1
        cli.ok("rm", "beta", "--force")
        cli.fails(10, "ls", "beta")
    cli.ok("warm", "alpha")
    assert cli.items("rm", "alpha")[0]["evicted"] == 1
    assert cli.items("ps") == []


def test_what_does_not_fit(running: Store, tmp_path: Path) -> None:
    big = cli.fill(Path(running.root), big=cli.small(9, 100_000))
    assert big.root == running.root
    cli.ok("warm", "alpha")
    line = cli.fails(20, "warm", "big", "--timeout", "1s")
    assert "big" in line and "1.0MiB" in line
    assert cli.items("ps")[0]["model"] == "alpha:latest"  # nothing was evicted for what fails
    done = cli.run("warm", "big", "--json", "--timeout", "1s")
    assert cli.error(done)["details"]["budget"] == 1 << 20


def test_wait(running: Store) -> None:
    assert cli.items("wait", "--for", "ready")[0]["condition"] == "ready"
    line = cli.fails(124, "wait", "alpha", "--timeout", "0.2s")
    assert "alpha" in line
    command = [*cli.TRIMS, "wait", "--any", "alpha", "beta", "--json"]
    waiter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    cli.ok("warm", "beta")
    out, _ = waiter.communicate(timeout=60)
    assert waiter.returncode == 0 and [item["name"] for item in json.loads(out)["items"]] == ["beta:latest"]
    cli.ok("wait", "--for", "free=512KiB")
    cli.ok("pin", "beta")
    cli.fails(124, "wait", "--for", "free=1MiB", "--timeout", "0.2s")
    cli.fails(20, "wait", "--for", "free=2MiB", "--timeout", "0.2s")
    cli.fails(2, "wait", "--for", "warm")
    cli.fails(2, "wait", "--for", "free")


def test_wait_ready_for_a_manager_to_come(store: Store) -> None:
    cli.fails(124, "wait", "--for", "ready", "--timeout", "0.2s")
    waiter = subprocess.Popen([*cli.TRIMS, "wait", "--timeout", "60s"], stdout=subprocess.PIPE, text=True)
    cli.ok("start")
    try:
        waiter.communicate(timeout=60)
        assert waiter.returncode == 0
    finally:
        cli.ok("stop")


def test_drain_and_now(running: Store) -> None:
    with trims.open("alpha") as model:
        cli.fails(21, "stop", "--timeout", "0.2s")
        assert cli.run("status").returncode == 0
        (item,) = cli.items("stop", "--now")
        assert (item["outcome"], item["leases"]) == ("stopped", 1)
        assert model["layer.bias"].shape == (8,)


def test_restart_keeps_pins_warmth_and_budget(running: Store) -> None:
    cli.ok("pin", "alpha")
    cli.ok("warm", "beta")
    before = cli.items("status")[0]
    cli.ok("restart", "--keep-warm")
    cli.ok("wait", "alpha", "beta")
    after = cli.items("status")[0]
    assert after["pid"] != before["pid"] and after["places"][0]["budget"] == 1 << 20
    assert {row["model"]: row["pins"] for row in cli.items("ps")} == {"alpha:latest": 1, "beta:latest": 0}
    cli.ok("restart", "--host-budget", "2MiB")
    assert cli.items("status")[0]["places"][0]["budget"] == 2 << 20


def test_import_warm(running: Store, models: Any) -> None:
    (item,) = cli.items("import", models.npz, "--name", "new", "--warm")
    assert (item["outcome"], item["warm"]) == ("imported", "warmed")
    assert [row["model"] for row in cli.items("ps")] == ["new:latest"]


def test_logs_follow_over_a_restart(running: Store) -> None:
    reader = subprocess.Popen([*cli.TRIMS, "logs", "-f", "--lines", "1"], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    try:
        assert b"ready" in reader.stdout.readline()
        cli.ok("restart")
        while b"ready" not in reader.stdout.readline():
            pass
    finally:
        reader.send_signal(signal.SIGINT)
        assert reader.wait(60) == -signal.SIGINT
        reader.stdout.close()
    assert "info" in cli.ok("logs", "--since", "1h", "--lines", "0")


def test_foreground(store: Store) -> None:
    child = subprocess.Popen(
        [*cli.TRIMS, "start", "--foreground"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        cli.ok("wait", "--for", "ready")
        assert cli.items("status")[0]["pid"] == child.pid
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=60)
    finally:
        leaks.kill({child.pid} if child.poll() is None else set())
    assert child.returncode == 0 and "Traceback" not in err, (out, err)
    assert cli.run("status").returncode == 3


def test_the_manager_of_another_store_is_not_asked(running: Store, home: Path) -> None:
    other = cli.fill(home / "other", alpha=cli.small(1))
    assert "another store" in cli.fails(2, "warm", "alpha", "--store", other.root)
    assert cli.items("ls", "--store", other.root)[0]["resident"] is None
    cli.fill(home / "other", theirs=cli.small(2))
    said = cli.fails(10, "warm", "theirs", env={"TRIMS_STORE": other.root})
    assert f"serves {running.root}, not {other.root}" in said
    cli.ok("rm", "alpha", "--store", other.root)
