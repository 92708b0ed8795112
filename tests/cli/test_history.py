"""`trims show --history`: what happened to a model in memory, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from helpers import cli, raw

from trims.disk.store import Store
from trims.manager import telling
from trims.residency.events import Key
from trims.residency.machine import HistoryView
from trims.wire.messages import History


@pytest.fixture
def running(store: Store) -> Iterator[Store]:
    cli.ok("start", "--host-budget", "8KiB", "--policy", "lru", env={"TRIMS_SPARE": "0"})  # two of three
    yield store
    cli.run("stop", "--now")


def test_every_end_has_its_reason(running: Store) -> None:
    cli.ok("warm", "alpha")
    cli.ok("warm", "beta")
    cli.ok("warm", "gamma")
    loaded, evicted = cli.items("show", "alpha", "--history")
    assert (loaded["event"], loaded["policy"], loaded["rank"]) == ("loaded", None, None)
    assert loaded["reason"].startswith("warm, asked by pid ") and loaded["seconds"] > 0
    assert (evicted["event"], evicted["policy"], evicted["rank"], evicted["of"]) == ("evicted", "lru", 1, 1)
    assert evicted["why"].startswith("room for gamma:latest") and evicted["by"].startswith("pid ")
    assert evicted["reason"].endswith("; lru, the only one")
    (status,) = cli.items("status")
    gone = status["last_eviction"]
    assert (gone["name"], gone["reason"]) == ("alpha:latest", evicted["reason"]) and gone["time"].endswith("Z")
    assert evicted["reason"] in cli.ok("status") and evicted["reason"] in cli.ok("top")
    cli.ok("evict", "beta")
    assert "asked by pid" in cli.items("show", "beta", "--history")[-1]["reason"]
    assert cli.items("status")[0]["last_eviction"]["name"] == "beta:latest"


def test_how_it_is_printed(running: Store) -> None:
    assert cli.ok("show", "alpha", "--history") == "the manager remembers nothing of alpha:latest\n"
    assert cli.items("show", "alpha", "--history") == []
    for _ in range(3):
        cli.ok("warm", "alpha")
        cli.ok("evict", "alpha")
    cli.ok("pin", "alpha", "--reason", "a\ttest")
    heads, *lines = cli.ok("show", "alpha", "--history").splitlines()
    assert heads.split() == ["TIME", "PLACE", "VARIANT", "EVENT", "REASON"]
    assert [line.split()[3] for line in lines] == ["loaded", "evicted"] * 3 + ["pinned", "loaded"]
    assert len(cli.ok("show", "alpha", "--history", "--limit", "2", "--no-header").splitlines()) == 2
    rows = [line.split("\t") for line in cli.ok("show", "alpha", "--history", "--format", "tsv").splitlines()]
    assert {len(row) for row in rows} == {5} and rows[-2][3] == "pinned" and "a" in rows[-2][4]
    document = json.loads(cli.ok("show", "alpha", "--history", "--json"))
    assert document["schema"] == "trims.history/1" and len(document["items"]) == 8


def test_what_fails(store: Store, running: Store) -> None:
    cli.fails(10, "show", "alphaa", "--history")
    cli.fails(2, "show", "alpha", "--history", "--tensors")
    cli.fails(2, "show", "alpha", "--limit", "3")
    cli.fails(2, "show", "alpha", "--history", "--limit", "0")
    cli.ok("stop")
    assert "trims start" in cli.fails(3, "show", "alpha", "--history")


def test_the_protocol_is_bounded_and_knows_what_left_the_store(manager: object) -> None:
    with raw.Raw(manager.runtime.socket) as client:  # type: ignore[attr-defined]
        assert client.ask(History, limit=10**9).items == []
        assert client.ask(History, digest="ab" * 32).items == []
        assert client.ask(History, digest="ab").code == "usage"
        assert client.ask(History, ref="none").code == "no-such-model"
        assert client.ask(History, ref="../x").code == "usage"


def line(what: str, number: int = 0, variant: str = "raw") -> HistoryView:
    return HistoryView(
        float(number), "host", variant, what, "w" * 5000, "", "lru", 1, 2, "m:latest", "d" * 64, 4096, 1.0
    )


def test_an_answer_has_the_newest_and_no_endless_reasons() -> None:
    items = telling.items([line("loaded", n) for n in range(2000)], 10**9)
    assert len(items) == 1000 and items[0]["time"] < items[-1]["time"]  # type: ignore[operator]
    assert len(json.dumps(items)) < 1 << 20
    assert len(telling.items([line("loaded", n) for n in range(5)], -1)) == 1


def test_what_went_is_that_very_form() -> None:
    key = Key("d" * 64, "raw", "host")
    lines = [line("expired"), line("evicted", variant="k"), line("loaded", variant="k")]
    assert telling.went(lines[:1], key).split()[1] == "m:latest"
    assert telling.went(lines[1:], key) == "" and telling.went([], key) == ""
