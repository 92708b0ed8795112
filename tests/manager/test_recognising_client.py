"""What a manager's client knows of files is what the store knows of them, whatever becomes of files and manager."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trims.client import connections
from trims.client.recognising import ManagerSources
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import let_settle
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sources import Sources
from trims.disk.store import Store, create_store


@pytest.fixture
def store(runtime: Any) -> Iterator[Store]:
    yield create_store(str(runtime.store), if_missing=True)
    connections.close_idle()


@pytest.fixture
def asked(runtime: Any) -> ManagerSources:
    return ManagerSources(str(runtime.socket))


def bring(store: Store, path: Path, ref: str) -> str:
    let_settle()
    with open_source(str(path)) as source:
        return import_model(store, source, ref).entry.digest


def test_the_same_is_known_as_by_the_store_s_files(
    store: Store, manager: Any, asked: ManagerSources, models: Any
) -> None:
    catalog = Catalog(store.paths)
    for name in ("onnx", "onnx_external", "safetensors", "npz", "npy", "sharded"):
        path = getattr(models, name)
        bring(store, path, name)
        for other in (f"a{name}", f"z{name}"):  # the name at import is the one that is told
            catalog.put(catalog.get(f"{name}:latest")._replace(ref=f"{other}:latest"))
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        for file in files:
            known = asked.find(file)
            assert known is not None and known == Sources(store.paths).find(file), name
            assert asked.find_bytes(file.read_bytes()) == (None if known.companions else known), name


def test_companions_are_looked_at_and_choose_between_models_of_one_graph(
    store: Store, manager: Any, asked: ManagerSources, models: Any, home: Path
) -> None:
    digests = {}
    for name in ("one", "two", "odd"):
        shutil.copytree(models.onnx_external.parent, home / name)
        (data,) = {path for path in (home / name).iterdir() if path.name == "cnn.bin"}
        if name != "one":
            data.write_bytes(data.read_bytes()[:-1] + name[:1].encode())
        if name != "odd":
            digests[name] = bring(store, home / name / models.onnx_external.name, name)
    assert digests["one"] != digests["two"]
    for known in (asked, Sources(store.paths)):
        for name in ("one", "two", "odd"):
            found = known.find(home / name / models.onnx_external.name)
            assert (found and found.model) == digests.get(name), name
        (home / "one" / "cnn.bin").rename(home / "away")
        assert known.find(home / "one" / models.onnx_external.name) is None
        (home / "away").rename(home / "one" / "cnn.bin")


def test_a_file_is_hashed_once_and_one_that_the_service_read_never(
    store: Store, manager: Any, asked: ManagerSources, home: Path
) -> None:
    path, copy = home / "a.npy", home / "b.npy"
    np.save(path, np.arange(5000.0))
    shutil.copy(path, copy)
    bring(store, path, "m")
    let_settle()
    assert asked.find(path) is not None and asked._digests == {}
    assert asked.find(copy) is not None and len(asked._digests) == 1
    key, digest = asked._digests.popitem()
    asked._digests[key] = "0" * 64  # what would be hashed anew is found all the same
    assert asked.find(copy) is None
    asked._digests[key] = digest
    with open(copy, "r+b") as file:
        file.seek(1000)
        file.write(b"changed")
    assert asked.find(copy) is None
    assert len(asked.find(path).file) == 64  # type: ignore[union-attr]


def test_managers_come_and_go_and_processes_fork(
    store: Store, managers: Any, asked: ManagerSources, runtime: Any, home: Path
) -> None:
    path = home / "a.npy"
    np.save(path, np.arange(5000.0))
    digest = bring(store, path, "m")
    assert asked.find(path) is None
    first = managers()
    assert asked.find(path).model == digest  # type: ignore[union-attr]
    pid = os.fork()
    if not pid:
        os._exit(0 if asked.find(path) is not None else 1)
    assert os.waitpid(pid, 0)[1] == 0
    first.stop()
    assert asked.find(path) is None
    managers()
    assert asked.find(path).model == digest  # type: ignore[union-attr]
    for odd in ("", "\0", home, "/dev/null", home / "missing", os.fsencode(path) + b"\xff", 7, None):
        assert asked.find(odd) is None  # type: ignore[arg-type]
