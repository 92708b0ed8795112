"""verify of a part: what was found whole is remembered, and the rest comes next."""

from __future__ import annotations

from pathlib import Path

from helpers import cli, stores

from trims.disk.catalog import Catalog
from trims.disk.store import Store


def names(*words: str) -> list[str]:
    return [item["name"] for item in cli.items("verify", *words)]


def test_runs_of_a_share_go_round(store: Store) -> None:
    assert sorted(name for _ in range(3) for name in names("--subset", "1")) == [
        "alpha:latest", "beta:latest", "gamma:latest",
    ]  # fmt: skip
    assert names("--max-age", "1h") == []
    assert len(names("--max-age", "0s")) == 3
    assert len([name for n in range(1, 4) for name in names("--subset", f"{n}/3")]) == 3


def test_what_is_damaged_is_not_noted(store: Store) -> None:
    stores.flip(store.paths.container(Catalog(store.paths).get("beta:latest").digest), 4096 * 8 + 5)
    assert cli.run("verify").returncode == 14
    done = cli.run("verify", "--max-age", "1h", "--columns", "name,result,verified")
    assert done.returncode == 14
    assert done.stdout.split()[3:] == ["beta:latest", "damaged", "-"]


def test_a_time_limit_is_no_failure(store: Store) -> None:
    done = cli.run("verify", "--time-limit", "0s")
    assert done.returncode == 0 and "3 models are left" in done.stderr
    assert names("--max-age", "1h") == ["alpha:latest", "beta:latest", "gamma:latest"]


def test_quick_notes_nothing(store: Store, home: Path) -> None:
    cli.ok("verify", "--quick")
    assert not (home / "state/trims/checked").exists()
    cli.fails(2, "verify", "--quick", "--subset", "1/2")
    cli.fails(2, "verify", "--subset", "3/2")
