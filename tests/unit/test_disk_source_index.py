"""The records of sources in memory: always those of the store, and asked without reading anything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from helpers import stores

from trims.disk import gc, snapshot
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import FileKey, let_settle
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.source_index import SourceIndex, unpacked
from trims.disk.sources import Sources
from trims.disk.store import Store, create_store
from trims.manager.names import Names
from trims.manager.recognising import Recognising
from trims.permission import Asker, Importer
from trims.wire.messages import Recognise

ANNA, BERT = (Asker(uid, uid, frozenset([uid])) for uid in (40_001, 40_002))


@pytest.fixture
def store(store_root: Path) -> Store:
    return stores.fresh(store_root)


def bring(store: Store, path: Path, ref: str, importer: Importer | None = None) -> str:
    let_settle()
    with open_source(str(path)) as source:
        return import_model(store, source, ref, importer=importer).entry.digest


def array_file(path: Path, seed: int = 0, n: int = 500) -> Path:
    np.save(path, np.random.default_rng(seed).standard_normal(n).astype(np.float32))
    return path


def same(index: SourceIndex, store: Store, paths: list[Path]) -> None:
    """The index, brought up to date, knows these files, as the store does, and no other."""
    index.refresh()
    contents = {(path.stat().st_size, blake3(path.read_bytes()).hexdigest()): path for path in paths}
    assert set(index.contents) == set(contents)
    for content, path in contents.items():
        (packed,) = index.contents[content].values()
        assert unpacked(packed) == [Sources(store.paths).find(path)]


def test_it_follows_the_store(store: Store, home: Path) -> None:
    index, files = SourceIndex(store.paths), [array_file(home / f"{n}.npy", n, 500 + n % 2) for n in range(4)]
    for n, path in enumerate(files):
        same(index, store, files[:n])
        bring(store, path, f"m{n}")
    same(index, store, files)
    assert {FileKey.of(os.stat(path)) for path in files} <= set(index.keys)
    generation = index.generation
    same(index, store, files)
    assert index.generation == generation
    Catalog(store.paths).remove("m0:latest")
    gc.collect(store, gc.plan(store))
    same(index, store, files[1:])
    record = next(Path(store.paths.sources).glob("[0-9]*/*.json"))
    record.write_bytes(b"damaged")
    os.utime(store.paths.sources)
    index.refresh()
    assert len(index.contents) == 2


def test_another_index_is_the_same(store: Store, home: Path) -> None:
    files = [array_file(home / f"{n}.npy", n) for n in range(3)]
    early = SourceIndex(store.paths)
    early.refresh()
    for n, path in enumerate(files):
        bring(store, path, f"m{n}")
        early.refresh()
    late = SourceIndex(store.paths)
    late.refresh()
    assert (early.contents, early.keys) == (late.contents, late.keys)


def test_what_is_another_s_is_looked_up_as_what_nobody_has(store_root: Path, home: Path) -> None:
    """The same files are opened, read and asked for, in the same order: no clock can tell."""
    store = create_store(str(store_root), system=True)
    files = {name: array_file(home / f"{name}.npy", n) for n, name in enumerate(("hers", "his", "nobodys"))}
    bring(store, files["hers"], "hers", Importer(ANNA))
    bring(store, files["his"], "his", Importer(BERT))
    service = Recognising(store, Names(store, Catalog(store.paths), lambda _: False))
    questions = {}
    for name, path in files.items():
        key = FileKey.of(os.stat(path))
        digest = blake3(path.read_bytes()).hexdigest()
        questions[name] = [Recognise(1, key.size, list(key)), Recognise(1, key.size, [], digest)]
    odd = Recognise(1, 12345, [1, 2, 12345, 4, 5])
    answers = {name: [service.items(one, BERT) for one in asked] for name, asked in questions.items()}
    hint = [{"size": files["his"].stat().st_size}]
    assert answers["hers"] == answers["nobodys"] == [hint, []]
    assert [items[0]["ref"] for items in answers["his"][1:]] == ["his:latest"]
    while snapshot.state(store.paths) is None:  # what has changed a moment ago is listed anew for every question
        let_settle()
    steps = _steps(service, [*questions["hers"], *questions["nobodys"], odd])
    assert steps[0] == steps[2] == steps[4] and steps[1] == steps[3] and steps[0]


def _steps(service: Recognising, questions: list[Recognise]) -> list[list[str]]:
    """What each look-up asks of the system, in a process of its own: nobody can take such a hook away again."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        told: list[list[str]] = []
        for question in questions:
            service.items(question, BERT)
        sys.addaudithook(lambda event, args: told[-1].append(f"{event} {args[:1]}") if told else None)
        for question in questions:
            told.append([])
            service.items(question, BERT)
        os.write(write, repr(told).encode())
        os._exit(0)
    os.close(write)
    with open(read) as said:
        text = said.read()
    assert os.waitpid(pid, 0)[1] == 0
    steps: list[list[str]] = eval(text)
    return steps
