"""A disk that is full, gets full, or cannot be written: on a real one, small enough to fill."""

import os

import numpy as np
import pytest
from helpers import mounts, sources, stores
from helpers.capabilities import needs_tmpfs
from helpers.sources import CodeSource, CodeTensor

from trims.disk import gc, snapshot
from trims.disk.catalog import Catalog
from trims.disk.direct import open_container
from trims.disk.ingest import import_model, import_variant
from trims.disk.store import create_store, open_store
from trims.errors import NoSpace, NotPermitted

pytestmark = needs_tmpfs
MIB = 1 << 20


def weights(nbytes):
    return sources.source({"w": np.frombuffer(os.urandom(nbytes), np.uint8)})


def fill_up(directory):
    """Take all free space but a few pages."""
    fd = os.open(directory / "filler", os.O_CREAT | os.O_WRONLY)
    try:
        while True:
            os.write(fd, bytes(4096))
    except OSError:
        pass
    finally:
        os.close(fd)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_written(home):
    def body(root):
        store = stores.fresh(root / "store")
        before = stores.tree(store.root)
        with pytest.raises(NoSpace) as caught:
            import_model(store, weights(9 * MIB), "m")
        assert caught.value.details["need"] > caught.value.details["free"] > 0
        assert stores.tree(store.root) == before
        assert not import_model(store, weights(1 * MIB), "m").already

    mounts.on_tmpfs(home / "disk", "8m", body)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_disk_that_fills_up_meanwhile(home, codec):
    def body(root):
        store = stores.fresh(root / "store")
        stores.put(store, "kept")
        before, data, reads = stores.tree(store.root), os.urandom(4 * MIB), []

        def read():
            reads.append(1)
            if len(reads) == 2:  # the second reading: the space was looked at, now it is being written
                fill_up(root)
            return memoryview(data)

        with pytest.raises(NoSpace, match="disk is full"):
            import_model(store, CodeSource([CodeTensor("w", "uint8", (4 * MIB,), read)]), "m", codec=codec)
        assert {path for path in stores.tree(store.root) - before if not path.startswith("locks/")} == set()
        stores.assert_sound(store)
        os.unlink(root / "filler")
        assert not import_model(store, sources.source({"w": np.frombuffer(data, "u1")}), "m", codec=codec).already
        stores.assert_sound(store)

    mounts.on_tmpfs(home / "disk", "12m", body)


def test_a_full_disk_can_still_be_listed_read_and_emptied(home):
    def body(root):
        store = stores.fresh(root / "store")
        kept, gone = stores.put(store, "kept", 1).entry, stores.put(store, "gone", 2).entry
        fill_up(root)
        catalog = Catalog(store.paths)
        assert catalog.refs() == ["gone:latest", "kept:latest"]
        stores.region(store, kept.digest)
        with pytest.raises(NoSpace):
            stores.put(store, "more", 3)
        catalog.remove("gone:latest")
        assert [item.name for item in gc.collect(store, gc.plan(store)).removed] == [gone.digest]
        os.unlink(root / "filler")
        stores.put(store, "more", 3)
        stores.assert_sound(store)

    mounts.on_tmpfs(home / "disk", "2m", body)


def test_a_store_that_cannot_be_written_is_read_and_says_so_when_asked_for_more(home):
    def body(root):
        store = stores.fresh(root / "store")
        entry = stores.put(store).entry
        mounts.make_read_only(root)
        before = stores.tree(root)
        store = open_store(str(root / "store"))
        catalog = Catalog(store.paths)
        assert catalog.refs() == ["m:latest"] and not snapshot.current(store.paths)
        assert catalog.resolve(f"id:{entry.digest[:8]}") == entry == catalog.match(["*"])[0]
        stores.region(store, entry.digest)
        stores.assert_sound(store)
        assert gc.plan(store).items == ()
        open_container(store, entry).close()
        for change in (
            lambda: stores.put(store, "other"),
            lambda: import_variant(store, entry.digest, "k", sources.sample()),
            lambda: catalog.put(entry),
            lambda: catalog.remove("m:latest"),
            lambda: gc.collect(store, gc.plan(store)),
            lambda: create_store(str(root / "second")),
        ):
            with pytest.raises(NotPermitted):
                change()
        assert stores.tree(root) == before

    mounts.on_tmpfs(home / "disk", "2m", body)
