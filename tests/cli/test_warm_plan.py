"""`trims warm --dry-run`: what would be needed, who would go for it and at what cost, or who stands in the way."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers import cli

from trims.disk.store import Store


@pytest.fixture
def running(store: Store) -> Iterator[Store]:
    """Two models of 4 KiB are idle in 8 KiB; a third, gamma, takes as much."""
    cli.ok("start", "--host-budget", "8KiB", "--policy", "lru", env={"TRIMS_SPARE": "0", "TRIMS_PIN_CAP": "100%"})
    cli.ok("warm", "alpha")
    cli.ok("warm", "beta")
    yield store
    cli.run("stop", "--now")


def test_it_names_who_would_go_and_what_that_costs(running: Store) -> None:
    (item,) = cli.items("warm", "-n", "gamma")
    (victim,) = item["victims"]
    assert (item["outcome"], item["need"], item["free"]) == ("would-warm", 4096, 0)
    assert (victim["name"], victim["nbytes"]) == ("alpha:latest", 4096) and victim["load_seconds"] > 0
    heads, row, _, victims, one, total = cli.ok("warm", "-n", "gamma").splitlines()
    assert heads.split() == ["NAME", "PLACE", "OUTCOME", "NEED", "FREE", "VICTIMS"]
    assert row.split()[:5] == ["gamma:latest", "host", "would-warm", "4.0KiB", "0B"]
    assert victims.split() == ["VICTIM", "SIZE", "RELOAD", "FOR"]
    assert one.split()[0] == "alpha:latest" and one.split()[-1] == "gamma:latest"
    assert total.startswith("1 model would go, 4.0KiB; loading again takes ")
    assert len(cli.ok("warm", "-n", "gamma", "--format", "tsv").splitlines()) == 2
    assert [row["model"] for row in cli.items("ps")] == ["alpha:latest", "beta:latest"]


def test_several_are_planned_together(running: Store) -> None:
    cli.ok("evict", "beta")
    gamma, beta = cli.items("warm", "-n", "gamma", "beta")
    assert (gamma["need"], gamma["free"], gamma["victims"]) == (4096, 4096, [])
    assert (beta["need"], beta["free"], beta["victims"][0]["name"]) == (4096, 0, "alpha:latest")
    done = cli.run("warm", "-n", "gamma", "beta", "alpha")
    assert done.returncode == 5 and "those before it take 8.0KiB" in done.stderr
    assert "alpha:latest" in done.stdout


def test_who_stands_in_the_way(running: Store) -> None:
    cli.ok("pin", "alpha", "--owner", "ann", "--reason", "demo")
    cli.ok("pin", "beta", "--owner", "bob")
    done = cli.run("warm", "-n", "gamma")
    assert done.returncode == 20 and "is pinned by" in done.stderr
    title, heads, *rows = done.stdout.splitlines()[1:]
    assert title == "on host:" and heads.split() == ["HOLDS", "SIZE", "WHY", "BY"]
    assert [row.split() for row in rows] == [
        ["alpha:latest", "4.0KiB", "pinned", "ann(demo)"],
        ["beta:latest", "4.0KiB", "pinned", "bob"],
    ]
    done = cli.run("warm", "-n", "gamma", "--json")
    assert json.loads(done.stdout)["items"] == []
    assert [b["ref"] for b in cli.error(done)["details"]["blockers"]] == ["alpha:latest", "beta:latest"]
    assert cli.run("warm", "-n", "gamma", "-q").stdout == ""


def test_what_is_no_plan(running: Store) -> None:
    assert cli.fails(20, "warm", "-n", "gamma", "--no-evict", "-q")
    cli.fails(10, "warm", "-n", "nope")
    assert cli.items("warm", "-n", "alpha")[0]["outcome"] == "already"
