import fcntl
import mmap
import os
import threading

import pytest
from helpers import sources, stores

from trims.disk.catalog import Catalog
from trims.disk.direct import open_container
from trims.disk.ingest import import_variant
from trims.errors import Damaged, NoSuchModel, NoSuchVariant, TrimsError
from trims.linux import flock


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def stamps(home):
    return [path for path in (home / "state").rglob("*") if path.is_file()]


def test_an_open_container_is_the_region_held(store):
    entry = stores.put(store).entry
    with open_container(store, entry) as opened, open(opened.path, "rb") as other:
        sidecar = opened.sidecar
        with mmap.mmap(opened.fd, 0, prot=mmap.PROT_READ) as memory:
            span = memory[sidecar.span_offset : sidecar.span_offset + sidecar.span_nbytes]
        assert span == stores.region(store, entry.digest)
        assert not flock.try_lock(other.fileno(), exclusive=True)
        assert flock.try_lock(other.fileno(), exclusive=False)
        fcntl.flock(other, fcntl.LOCK_UN)
    opened.close()
    with open(opened.path, "rb") as other:
        assert flock.try_lock(other.fileno(), exclusive=True)


def test_it_is_checked_once_and_again_when_the_file_changes(store, home):
    entry = stores.put(store).entry
    path = store.paths.container(entry.digest)
    open_container(store, entry).close()
    assert len(stamps(home)) == 1
    stamp = stamps(home)[0].read_text()
    open_container(store, entry).close()
    bit = 8 * stores.sidecar_of(store, entry.digest).span_offset
    stores.flip(path, bit)
    with pytest.raises(Damaged, match=r"tensor conv1\.weight"):
        open_container(store, entry)
    stores.flip(path, bit)
    open_container(store, entry).close()
    assert stamps(home)[0].read_text() != stamp


def test_a_forged_or_broken_stamp_is_no_proof(store, home):
    entry = stores.put(store).entry
    open_container(store, entry).close()
    stores.flip(store.paths.container(entry.digest), 8 * stores.sidecar_of(store, entry.digest).span_offset)
    for junk in (b"", b"\xff", b"1 2 3"):
        stamps(home)[0].write_bytes(junk)
        with pytest.raises(Damaged):
            open_container(store, entry)


def test_without_a_place_for_stamps_it_is_checked_every_time(store, home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
    entry = stores.put(store).entry
    open_container(store, entry).close()
    open_container(store, entry).close()


def test_variants(store):
    entry = stores.put(store).entry
    with pytest.raises(NoSuchVariant):
        open_container(store, entry, "ort-x")
    made = import_variant(store, entry.digest, "ort-x", sources.sample(4))
    with open_container(store, entry, "ort-x") as opened:
        assert opened.sidecar == made


@pytest.mark.parametrize("missing", ["container", "sidecar"])
def test_a_ref_whose_files_are_missing_is_damage(store, missing):
    entry = stores.put(store).entry
    os.unlink(getattr(store.paths, missing)(entry.digest))
    with pytest.raises(Damaged, match="container"):
        open_container(store, entry)


def test_a_container_removed_while_it_is_opened_is_gone(store):
    """The collector holds the file exclusively while it removes it: whoever waited for the lock finds it gone."""
    entry = stores.put(store).entry
    path, outcome = store.paths.container(entry.digest), []

    def attempt():
        try:
            open_container(store, entry).close()
        except TrimsError as error:
            outcome.append(type(error))

    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        opener = threading.Thread(target=attempt)
        opener.start()
        Catalog(store.paths).remove(entry.ref)
        os.unlink(store.paths.sidecar(entry.digest))
        os.unlink(path)
    opener.join()
    assert outcome == [NoSuchModel]
