"""`trims verify --resident`: real memory of the host, and of simulated GPUs, held to the digests."""

from __future__ import annotations

import json
import os

import pytest
from helpers import cli, sources
from helpers.gpus import MIB
from helpers.raw import Raw

from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.manifest import parse_table
from trims.wire.messages import Attach, Attached, Warm


@pytest.fixture
def manager(gpus, managers, runtime):
    store = create_store(str(runtime.store))
    for ref, seed in (("m", 1), ("n", 2)):
        tensors = {"w": sources.numbers(seed, 3 * MIB // 4), "b": sources.numbers(seed + 7, 8)}
        import_model(store, sources.source(tensors, files={"labels.txt": b"cat"}), f"{ref}:latest")
    return managers()


@pytest.fixture
def client(manager):
    with Raw(manager.runtime.socket) as client:
        yield client


def verify(*words: str, code: int = 0) -> list[dict]:
    run = cli.run("verify", "--resident", "--json", *words)
    assert run.returncode == code, run.stderr
    return json.loads(run.stdout)["items"]


def test_what_is_resident_is_read_where_it_is(gpus, client) -> None:
    for ref, place in (("m", "host"), ("m", gpus.place(0)), ("n", gpus.place(1))):
        client.ask(Warm, ref=ref, place=place)
    found = {(item["name"], item["place"], item["result"]) for item in verify()}
    assert found == {
        ("m:latest", "host", "ok"), ("m:latest", gpus.place(0), "ok"), ("n:latest", gpus.place(1), "ok"),
    }  # fmt: skip
    assert {item["place"] for item in verify("m")} == {"host", gpus.place(0)}


def test_what_was_written_to_a_gpu_is_found_by_name(gpus, client) -> None:
    client.ask(Warm, ref="n", place="gpu")
    answer = client.ask(Attach, ref="m", place=gpus.place(0))
    assert isinstance(answer, Attached)
    offset, nbytes = answer.table
    tail, *slabs = client.fds[-2:]
    table = parse_table(os.pread(tail, nbytes, offset - answer.tail))
    at = next(at for name, _, _, at in table.rows() if name == "b")
    gpus.write(slabs, answer.slabs, at, b"\xff")
    items = verify(code=14)
    assert {item["name"]: item["damaged"] for item in items} == {"m:latest": ["b"], "n:latest": []}
    run = cli.run("verify", "--resident", "m")
    assert run.returncode == 14 and "b" in run.stderr and "trims evict" in run.stderr


def test_what_is_not_resident_is_said(client) -> None:
    run = cli.run("verify", "--resident", "m")
    assert run.returncode == 10 and "nothing resident is 'm'" in run.stderr
    assert verify() == []
    run = cli.run("verify", "--resident", "--quick")
    assert run.returncode == 2


def test_a_gpu_that_is_not_seen_here_is_not_read(gpus, client, monkeypatch) -> None:
    client.ask(Warm, ref="m", place=gpus.place(1))
    client.ask(Warm, ref="n", place="host")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run = cli.run("verify", "--resident")
    assert run.returncode == 5 and "does not see" in run.stderr and "ok" in run.stdout


def test_without_a_manager(runtime) -> None:
    assert cli.run("verify", "--resident").returncode == 3
