"""A store that users share: closed to them, its refs with owners, equal content of two domains kept apart."""

from __future__ import annotations

import os
import stat

import pytest
from helpers import sources

from trims.disk.catalog import Catalog
from trims.disk.ingest import import_model
from trims.disk.sidecar import read_sidecar
from trims.disk.store import create_store, open_store
from trims.disk.verify import verify_store
from trims.errors import NotPermitted, UsageError
from trims.permission import Asker, Importer

ANNA = Importer(Asker(1000, 1000, frozenset((1000, 50))))
BERT = Importer(Asker(1001, 1001, frozenset((1001, 50))))


def model(seed: int = 1):
    return sources.source({"w": sources.numbers(seed, 40, 16)})


@pytest.fixture
def store(store_root):
    return create_store(str(store_root), system=True)


def test_its_directory_is_closed_and_it_says_what_it_is(store, store_root):
    assert stat.S_IMODE(os.stat(store_root).st_mode) == 0o700
    assert store.system
    assert open_store(str(store_root)) == store
    assert create_store(str(store_root), if_missing=True, system=True) == store


def test_a_users_store_does_not_become_one(store_root):
    assert not create_store(str(store_root)).system
    with pytest.raises(UsageError, match="one user's scope"):
        create_store(str(store_root), if_missing=True, system=True)


def test_equal_content_is_stored_once_a_domain(store):
    first = import_model(store, model(), "a", importer=ANNA)
    again = import_model(store, model(), "a2", importer=ANNA)
    other = import_model(store, model(), "b", importer=BERT)
    assert (first.already, again.already, other.already) == (False, True, False)
    assert first.entry.digest == again.entry.digest != other.entry.digest
    group = import_model(store, model(), "g", importer=ANNA._replace(group=50))
    joined = import_model(store, model(), "h", importer=BERT._replace(group=50))
    assert (group.already, joined.already) == (False, True)
    assert group.entry.digest == joined.entry.digest
    found = {e.ref: read_sidecar(store.paths.sidecar(e.digest)).manifest.domain for e in Catalog(store.paths).entries()}
    assert found == {
        "a:latest": "uid:1000", "a2:latest": "uid:1000", "b:latest": "uid:1001", "g:latest": "gid:50",
        "h:latest": "gid:50",
    }  # fmt: skip
    assert verify_store(store) == []


def test_an_entry_says_whose_it_is(store):
    entry = import_model(store, model(), "a", importer=ANNA._replace(group=50)).entry
    assert (entry.owner, entry.group, entry.mode) == (1000, 50, 0o640)
    assert Catalog(store.paths).get("a:latest").access == entry.access
    assert '"owner":1000,"group":50,"mode":416' in Catalog(store.paths).rows()[0][2]
    ours = import_model(store, model(), "o").entry
    assert ours.access == (os.geteuid(), os.getegid(), 0o600)


def test_a_name_belongs_to_whoever_came_first(store):
    import_model(store, model(), "m", importer=ANNA)
    for if_exists in ("replace", "skip", "fail"):
        with pytest.raises(NotPermitted, match="belongs to another user"):
            import_model(store, model(2), "m", importer=BERT, if_exists=if_exists)
    assert import_model(store, model(3), "m", importer=ANNA._replace(mode=0o644)).entry.mode == 0o644
    assert import_model(store, model(4), "m").entry.owner == 1000


def test_what_was_shared_meanwhile_is_not_published_for_others(store, monkeypatch):
    import_model(store, model(), "m", importer=ANNA._replace(group=50))
    catalog = Catalog(store.paths)

    def unshare(_done: int, _total: int) -> None:
        catalog.put(import_entry)

    import_entry = catalog.get("m:latest")._replace(mode=0o600)
    with pytest.raises(NotPermitted, match="meanwhile"):
        import_model(store, model(2), "m", importer=ANNA, progress=unshare)
    assert catalog.get("m:latest") == import_entry


def test_a_store_of_one_user_is_as_it_was(store_root):
    store = create_store(str(store_root))
    entry = import_model(store, model(), "m", importer=ANNA).entry
    assert entry.access is None
    with open(store.paths.entry("m:latest")) as file:
        assert "owner" not in file.read()
    with open(store.paths.sidecar(entry.digest)) as file:
        assert "domain" not in file.read()
