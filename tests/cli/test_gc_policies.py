"""gc with a policy: what it plans, asks, refuses and frees."""

from __future__ import annotations

from pathlib import Path

from helpers import cli

from trims.disk.catalog import Catalog
from trims.disk.store import Store


def names(*words: str) -> list[str]:
    return [item["name"] for item in cli.items("gc", *words) if item["kind"] == "model"]


def test_named_models_go_only_by_a_policy(store: Store) -> None:
    assert cli.items("gc", "--yes") == [] == names("--unused-for", "1h", "-n")
    everything = ["alpha:latest", "beta:latest", "gamma:latest"]
    assert sorted(names("--unused-for", "0s", "-n")) == everything
    assert sorted(names("--keep-last", "0", "-n")) == everything and names("--keep-last", "1", "-n") == []
    assert names("--target-size", "1GiB", "-n") == []
    assert "--yes" in cli.fails(2, "gc", "--unused-for", "0s")
    assert "alone" in cli.fails(2, "gc", "--keep-labelled", "a=b")
    cli.fails(2, "gc", "--keep-labelled", "a", "--keep-last", "1")
    cli.fails(2, "gc", "--partial-only", "--keep-last", "1")
    cli.fails(2, "gc", "--keep-last", "-1")
    assert cli.ok("ls", "-q").split() == everything


def test_a_policy_frees_names_and_bytes(store: Store) -> None:
    paths = [Path(store.paths.container(e.digest)) for e in Catalog(store.paths).entries()]
    items = cli.items("gc", "--yes", "--target-size", "1")
    assert {item["outcome"] for item in items} == {"removed"}
    assert [item["kind"] for item in items].count("model") == 3
    assert cli.ok("ls", "-q") == "" and not any(path.exists() for path in paths)
    assert "nothing to collect" in cli.ok("gc", "--keep-last", "0")


def test_what_is_pinned_stays_and_is_reported(store: Store, manager) -> None:
    cli.ok("pin", "beta")
    done = cli.run("gc", "--yes", "--unused-for", "0s")
    assert done.returncode == 5 and "pinned" in done.stderr, done
    assert cli.ok("ls", "-q") == "beta:latest\n"
    done = cli.run("gc", "--yes", "--unused-for", "0s")
    assert done.returncode == 22


def test_partial_only(store: Store) -> None:
    cli.ok("rm", "alpha", "--keep-data")
    left = Path(store.paths.tmp) / "left"
    left.write_bytes(b"x")
    assert [item["kind"] for item in cli.items("gc", "--partial-only", "--yes")] == ["temporary"]
    assert not left.exists()
    assert [item["kind"] for item in cli.items("gc", "-n")] == ["container"]
