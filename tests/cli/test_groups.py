"""Sums and orders: df --by, ps --group-by, TRIMS_SORT."""

from __future__ import annotations

import os
from pathlib import Path

from helpers import cli

from trims.disk.catalog import Catalog
from trims.disk.store import Store
from trims_cli import output, processes
from trims_cli.processes import grouped


def test_df_by(store: Store) -> None:
    alpha = Catalog(store.paths).get("alpha:latest")
    Catalog(store.paths).put(alpha._replace(ref="copy:latest"))
    rows = {item["what"]: item for item in cli.items("df", "--by", "model")}
    assert list(rows) == ["alpha:latest", "beta:latest", "copy:latest", "gamma:latest"]
    size = os.stat(store.paths.container(alpha.digest)).st_size
    assert rows["alpha:latest"] == {"what": "alpha:latest", "count": 2, "nbytes": size, "reclaimable": 0}
    assert rows["beta:latest"]["count"] == 1 and rows["beta:latest"]["reclaimable"] == rows["beta:latest"]["nbytes"]
    (row,) = cli.items("df", "--by", "codec")
    assert row["what"] == "none" and row["count"] == 3
    cli.fails(2, "df", "--by", "moon")


def test_ps_grouped(store: Store, manager) -> None:
    cli.ok("warm", "alpha", "beta")
    rows = cli.items("ps", "--group-by", "model")
    assert [(r["group"], r["models"], r["leases"]) for r in rows] == [("alpha:latest", 1, 0), ("beta:latest", 1, 0)]
    (row,) = cli.items("ps", "--group-by", "user")
    assert row["group"] is None and row["models"] == 2 and row["nbytes"] == sum(r["nbytes"] for r in rows)
    assert cli.ok("ps", "--group-by", "job", "--sort", "size").split()[:2] == ["GROUP", "MODELS"]
    cli.fails(2, "ps", "--group-by", "moon")


def test_a_residency_counts_once_in_a_group() -> None:
    def lease(user: str, pid: int | None, model: str = "m") -> dict[str, object]:
        return {"id": model, "variant": "raw", "place": "host", "nbytes": 7, "pid": pid, "user": user, "model": model}

    rows = grouped([lease("a", 1), lease("a", 1), lease("a", 2), lease("b", 3), lease("a", 2, "n")], "user")
    assert rows == [
        {"group": "a", "models": 2, "nbytes": 14, "leases": 4, "processes": 2},
        {"group": "b", "models": 1, "nbytes": 7, "leases": 1, "processes": 1},
    ]


def test_the_order_of_the_environment(store: Store, home: Path) -> None:
    def names(*words: str, sort: str) -> str:
        return "".join(item["name"][0] for item in cli.items("ls", *words, env={"TRIMS_SORT": sort}))

    assert names(sort="name:desc") == "gba"
    assert names("--sort", "name", sort="name:desc") == "abg"
    assert names(sort="pid") == "abg"  # of another listing
    cli.fails(2, "ls", env={"TRIMS_SORT": "name:up"})


def test_forms_of_one_model_are_told_apart_where_both_are_there() -> None:
    raw = {"model": "m:latest", "place": "host", "variant": "raw"}
    usual = [c.name for c in processes.COLUMNS if c.usual]

    def shown(*items: dict[str, str]) -> list[str]:
        return [c.name for c in output.telling_forms_apart(processes.COLUMNS, items, "model") if c.usual]

    assert shown() == shown(raw) == shown(raw, raw) == usual
    assert shown(raw, {**raw, "model": "n:latest", "variant": "k"}) == usual
    assert shown(raw, {**raw, "place": "gpu:1", "variant": "k"}) == usual
    assert shown(raw, {**raw, "variant": "k"}) == [*usual, "VARIANT"]
