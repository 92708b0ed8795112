"""Imports that the manager does for its clients: from files it never holds, by a process that leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import capabilities
from helpers.channels import Importer, children, half_way, left, wait_for_end
from helpers.leaks import wait_ended
from helpers.raw import PATIENCE, Raw, descriptors, until

from trims.disk import fingerprint, gc
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import FileKey
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sources import Sources
from trims.disk.store import Store, create_store, open_store
from trims.linux import fdpass
from trims.wire.framing import encode
from trims.wire.messages import Channel, Import, Refused, Result, Status
from trims_cli import bringing
from trims_cli.settings import Settings

OPTIONS: dict[str, Any] = {"labels": {"k": "v"}, "if_exists": "replace", "variant": False}


@pytest.fixture
def store(manager: Any) -> Store:
    return open_store(str(manager.runtime.store))


@pytest.fixture
def two(models: Any, home: Path) -> tuple[str, str]:
    """Two files of one source."""
    shutil.copy(models.npz, home / "a.npz")
    (home / "b.json").write_text("{}")
    return str(home / "a.npz"), str(home / "b.json")


# ---- what comes in is what would have come in


def test_the_same_models_as_imported_directly(manager: Any, models: Any, store: Store, home: Path) -> None:
    direct = create_store(str(home / "direct"))
    watcher = Raw(manager.runtime.socket)
    before = descriptors(manager.pid)
    for number, path in enumerate((models.onnx_external, models.sharded, models.h5)):
        item = bringing.by_manager(Settings(), str(path), "auto", f"m{number}:latest", OPTIONS)
        with open_source(path) as source:
            entry = import_model(direct, source, f"m{number}", labels={"k": "v"}).entry
        assert (item["id"], item["outcome"], item["stored"]) == (entry.digest, "imported", entry.stored)
        found = Catalog(store.paths).find(f"m{number}:latest")
        assert found is not None and (found.digest, found.labels) == (entry.digest, {"k": "v"})
        assert "/" not in found.origin["path"]  # nothing of the client's directories, nor of ours
    assert bringing.by_manager(Settings(), str(models.h5), "auto", "m2:latest", OPTIONS)["outcome"] == "already"
    with watcher:
        until(lambda: descriptors(manager.pid) == before, watcher)
    assert left(store) == [] and children(manager.pid) == set()


def test_the_clients_own_file_is_known_afterwards(manager: Any, models: Any, store: Store, home: Path) -> None:
    """By its five numbers: nobody has to read it through to know it."""
    if not fingerprint.is_lasting(FileKey.of(os.stat(models.safetensors))):
        pytest.skip("files are on no block device here: the keys of clients' files are not remembered")
    fingerprint.let_settle()
    bringing.by_manager(Settings(), str(models.safetensors), "auto", "m:latest", OPTIONS)
    key = FileKey.of(os.stat(models.safetensors))
    assert json.loads(Path(store.paths.source_key(key.dev, key.ino)).read_text())["key"] == list(key)
    found = Sources(store.paths).find(str(models.safetensors))
    assert found is not None and found.ref == "m:latest"


def test_a_hub_s_links_are_followed_by_the_client(manager: Any, models: Any, home: Path) -> None:
    """snapshots/x/model.onnx and what it refers to are links to blobs of other names."""
    blobs, snapshot = home / "blobs", home / "snapshots" / "x"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(models.onnx_external.parent.glob(f"{models.onnx_external.stem}*"))):
        shutil.copy(path, blobs / f"b{number}")
        (snapshot / path.name).symlink_to(blobs / f"b{number}")
    name = str(snapshot / models.onnx_external.name)
    item = bringing.by_manager(Settings(), name, "auto", "m:latest", {**OPTIONS, "variant": True})
    assert item["outcome"] == "imported" and bool(item["variant"]) == capabilities.has_module("onnxruntime")


# ---- what clients can do wrong


def test_bad_orders_are_refused_before_anything_is_started(manager: Any, store: Store) -> None:
    with Raw(manager.runtime.socket) as client:
        for files in ([], ["/etc/passwd"], ["../x"], ["a", "a"], ["a//b"], ["a\0b"], ["."], ["x" * 2000]):
            answer = client.ask(Import, ref="m", files=files)
            assert isinstance(answer, Refused) and answer.code == "usage", files
        assert client.ask(Import, ref="not a ref", files=["a"]).code == "usage"
        assert client.ask(Import, ref="m", files=["a"], mode=0o644).code == "usage"  # of one user's scope
    assert children(manager.pid) == set() and left(store) == []


def _fifo(home: Path) -> int:
    os.mkfifo(home / "fifo")
    return os.open(home / "fifo", os.O_RDONLY | os.O_NONBLOCK)


def _unreadable(home: Path) -> int:
    (home / "written").write_bytes(b"x" * 100)
    return os.open(home / "written", os.O_WRONLY)


def _huge(home: Path) -> int:
    fd = os.open(home / "huge", os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 1 << 43)  # nothing of it is there
    return fd


WRONG = (
    (_fifo, "bad-input"),
    (lambda home: os.open(home, os.O_RDONLY | os.O_DIRECTORY), "bad-input"),
    (lambda _: os.open("/dev/zero", os.O_RDONLY), "bad-input"),
    (_unreadable, "bad-input"),
    (_huge, "no-space"),
    (lambda _: -1, "protocol"),
)


def test_what_is_no_file_is_refused(manager: Any, store: Store, home: Path) -> None:
    for make, code in WRONG:
        with Importer(manager.runtime.socket) as client, ExitStack() as stack:
            client.begin("a.npz")
            assert client.asked() == 0
            fd = make(home)
            if fd < 0:
                client.channel.close()
            else:
                stack.callback(os.close, fd)
                client.give(0, fd)
            answer = client.answer(client.id)
            assert isinstance(answer, Refused) and answer.code == code and "a.npz" in answer.what, answer
            assert str(store.root) not in f"{answer.what} {answer.why}"
    assert left(store) == []


def test_descriptors_sent_to_the_manager_are_refused_or_dropped(manager: Any, two: tuple[str, str]) -> None:
    """By the kernel, where it can."""
    with Raw(manager.runtime.socket) as client, open(two[0], "rb") as file:
        before = descriptors(manager.pid)
        for _ in range(50):
            try:
                fdpass.send(client.sock, encode(Status(client.next_id())), [file.fileno()] * 4)
            except PermissionError:
                client.send(Status(client._id))
            assert isinstance(client.answer(client._id), Result)
        assert descriptors(manager.pid) == before


def test_one_that_waits_keeps_nobody_waiting_but_its_own_user(manager: Any, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (first, _), Raw(manager.runtime.socket) as other:
        assert isinstance(other.ask(Status), Result)
        with Importer(manager.runtime.socket) as second:
            second.id = second.next_id()
            second.send(Import(id=second.id, ref="n", files=["a.npz"]))
            first.close()  # its turn has come
            assert second.receive() == Channel(second.id)
            second.channel = socket.socket(fileno=second.fds.pop())
            with open(two[0], "rb") as file:
                assert second.asked() == 0
                second.give(0, file.fileno())
                assert isinstance(second.answer(second.id), Result)


# ---- whoever dies, nothing is left


def test_a_client_that_ends_takes_its_import_with_it(manager: Any, store: Store, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (client, child):
        assert len(left(store)) == 1
        client.sock.close()  # its end of the channel stays open: it is the connection that counts
        wait_for_end(child)
    assert left(store) == []
    with Raw(manager.runtime.socket) as other:
        until(lambda: children(manager.pid) == set(), other)


def test_an_import_that_is_killed_is_refused_and_swept_up(manager: Any, store: Store, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (client, child):
        os.kill(child, signal.SIGKILL)
        answer = client.answer(client.id)
    assert isinstance(answer, Refused) and "killed" in answer.why and left(store) == []


def test_an_import_ends_with_the_manager(manager: Any, store: Store, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (_, child):
        manager.kill()
        wait_for_end(child)
    assert left(store) == []


def test_what_both_left_is_collected(manager: Any, store: Store, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (_, child):
        assert gc.plan(store).items == ()  # it is in use
        os.kill(manager.pid, signal.SIGSTOP)
        os.kill(child, signal.SIGKILL)
        wait_for_end(child)
        manager.kill()
    (item,) = gc.plan(store).items
    assert item.kind == "temporary" and item.nbytes > 0
    assert gc.sweep(store) == item.nbytes and left(store) == []


def test_a_manager_that_is_told_to_stop_ends_them(manager: Any, store: Store, two: tuple[str, str]) -> None:
    with half_way(manager, two) as (_, child):
        manager.request("stop", drain=False)
        wait_for_end(child)
        assert not wait_ended({manager.pid}, PATIENCE)
    assert left(store) == []
