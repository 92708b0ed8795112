"""Policies at the command line: chosen at start, shown, changed on a running manager, kept over a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers import cli

from trims.disk.store import Store
from trims.residency.policies import ALIASES, POLICIES
from trims_cli import policy


@pytest.fixture
def running(store: Store) -> Iterator[Store]:
    cli.ok("start", "--host-budget", "1MiB", "--policy", "fifo", "--min-resident", "90s", env={"TRIMS_SPARE": "0"})
    yield store
    cli.run("stop", "--now")


def in_force() -> str:
    return str(cli.items("status")[0]["policy"])


def test_it_is_chosen_at_start_and_shown(running: Store) -> None:
    (status,) = cli.items("status", "-v")
    assert (status["policy"], status["min_resident"]) == ("fifo", 90.0)
    assert status["manager"]["policy"] == "fifo"
    assert status["manager"]["settings"]["residency.min_resident"] == "90s"
    assert "policy:    fifo, none within 1m of its load\n" in cli.ok("status")
    assert 'policy="fifo"' in cli.ok("status", "--prometheus")
    running_values = {row["key"]: row["running"] for row in cli.items("config")}
    assert running_values["residency.policy"] == "fifo" and running_values["budget.host"] == "1.0MiB"


def test_it_is_listed_and_changed(running: Store) -> None:
    listed = {item["name"]: item for item in cli.items("policy")}
    assert list(listed) == list(POLICIES)
    assert [name for name, item in listed.items() if item["current"]] == ["fifo"]
    assert all(len(item["summary"]) > 20 for item in listed.values())
    assert "* fifo " in cli.ok("policy") and cli.ok("policy", "-q") == "fifo\n"
    done = cli.run("policy", "lcu")
    assert (done.returncode, done.stdout) == (0, "policy lfu, before fifo\n")
    assert "trims config set residency.policy lfu" in done.stderr
    assert in_force() == "lfu" and cli.items("status", "-v")[0]["manager"]["policy"] == "lfu"
    assert cli.ok("policy", "lfu", env={"TRIMS_POLICY": "lfu"}) == "policy lfu, as before\n"
    assert json.loads(cli.run("policy", "fifo", "--json").stdout)["items"] == [{"policy": "fifo", "before": "lfu"}]


def test_it_is_never_half_changed(running: Store) -> None:
    assert "did you mean fifo?" in cli.fails(2, "policy", "fifoo")
    assert "did you mean sieve?" in cli.fails(2, "restart", "--policy", "sive")
    assert in_force() == "fifo"


def test_a_restart_carries_it_over_unless_something_says_otherwise(running: Store) -> None:
    cli.run("policy", "gdsf")
    cli.ok("restart")
    (status,) = cli.items("status")
    assert (status["policy"], status["min_resident"], status["places"][0]["budget"]) == ("gdsf", 90.0, 1 << 20)
    cli.ok("restart", env={"TRIMS_POLICY": "sieve"})
    assert in_force() == "sieve"


def test_a_start_says_what_stays_otherwise(running: Store) -> None:
    done = cli.run("start", "--policy", "lcu", "--host-budget", "2MiB", "--min-resident", "1.5m")
    assert done.returncode == 0 and "runs already" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "policy fifo (asked: lcu)" in line and "`trims policy lcu`" in line
    assert "host budget 1MiB (asked: 2MiB)" in line and "`trims restart --host-budget 2MiB`" in line
    assert "min resident" not in line  # 1.5m are 90s
    done = cli.run("start", "--host-budget", "2MiB", "--json")
    assert json.loads(done.stdout)["items"][0]["differs"] == [
        {"key": "budget.host", "asked": "2MiB", "running": "1MiB"}
    ]
    cli.ok("start", "--host-budget", "1024KiB", "--policy", "fifo")
    other = cli.run("start", "--store", "/nowhere")
    assert other.returncode == 0 and "trims stop" in other.stderr and running.root in other.stderr


def test_without_a_manager(store: Store) -> None:
    done = cli.run("policy")
    assert done.returncode == 3 and "lru" in done.stdout and "*" not in done.stdout
    done = cli.run("policy", "--json")
    assert done.returncode == 3 and not any(item["current"] for item in json.loads(done.stdout)["items"])
    assert cli.error(done)["code"] == "not-running"
    cli.fails(3, "policy", "lru")
    assert "did you mean lru?" in cli.fails(2, "start", "--policy", "lruu")
    assert "environment TRIMS_POLICY" in cli.fails(2, "start", env={"TRIMS_POLICY": "tea"})
    assert "bad" in cli.fails(2, "start", "--min-resident", "soon")
    assert cli.run("status").returncode == 3


def test_every_name_has_its_policy() -> None:
    for name in (*POLICIES, *ALIASES):
        assert policy.check(name) in POLICIES
