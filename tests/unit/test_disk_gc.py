import os

import pytest
from helpers import sources, stores

from trims.disk import gc
from trims.disk.catalog import Catalog
from trims.disk.direct import open_container
from trims.disk.ingest import import_variant
from trims.errors import Damaged, LockTimeout
from trims.linux import atomic, flock


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def names(garbage):
    return sorted((item.kind, item.name) for item in garbage)


def collected(store, **options):
    return gc.collect(store, gc.plan(store, **options), **options)


def test_what_a_ref_names_stays(store):
    digest = stores.put(store).entry.digest
    import_variant(store, digest, "ort-x", sources.sample(5))
    before = stores.tree(store.root)
    assert gc.plan(store).items == () and collected(store).removed == ()
    assert stores.tree(store.root) == before


def test_what_nothing_names_goes_with_its_variants(store):
    kept, gone = stores.put(store, "kept", 1).entry, stores.put(store, "gone", 2).entry
    import_variant(store, gone.digest, "ort-x", sources.sample(5))
    import_variant(store, kept.digest, "ort-x", sources.sample(5))
    Catalog(store.paths).remove("gone:latest")
    plan = gc.plan(store)
    assert names(plan.items) == [("container", gone.digest), ("variant", f"{gone.digest}/ort-x")]
    assert plan.nbytes > gone.stored
    result = gc.collect(store, plan)
    assert names(result.removed) == names(plan.items) and result.nbytes == plan.nbytes
    assert not [path for path in stores.tree(store.root) if gone.digest in path]
    assert not os.path.exists(f"{store.paths.variants}/{gone.digest}")
    stores.assert_sound(store)
    assert collected(store).removed == ()


def test_a_second_ref_keeps_the_bytes(store):
    stores.put(store, "a")
    stores.put(store, "b")
    Catalog(store.paths).remove("a:latest")
    assert gc.plan(store).items == ()


def test_what_got_a_name_since_the_plan_stays(store):
    entry = stores.put(store).entry
    Catalog(store.paths).remove("m:latest")
    plan = gc.plan(store)
    Catalog(store.paths).put(entry)
    assert gc.collect(store, plan).removed == ()
    stores.assert_sound(store)


def test_only_what_was_agreed_to_goes(store):
    stores.put(store, "a", 1)
    Catalog(store.paths).remove("a:latest")
    plan = gc.plan(store)
    other = stores.put(store, "b", 2).entry
    Catalog(store.paths).remove("b:latest")
    assert len(gc.collect(store, plan).removed) == 1
    assert os.path.exists(store.paths.container(other.digest))


def test_a_container_that_somebody_maps_stays_until_let_go(store):
    entry = stores.put(store).entry
    with open_container(store, entry):
        Catalog(store.paths).remove("m:latest")
        result = collected(store)
        assert names(result.kept) == [("container", entry.digest)] and result.removed == ()
        assert os.path.exists(store.paths.sidecar(entry.digest))
    assert names(collected(store).removed) == [("container", entry.digest)]


def test_variants_that_nobody_wants_go_and_half_published_ones_too(store):
    digest = stores.put(store).entry.digest
    for key in ("old", "new", "torn"):
        import_variant(store, digest, key, sources.sample(len(key)))
    os.unlink(store.paths.variant_sidecar(digest, "torn"))
    assert names(gc.plan(store).items) == [("variant", f"{digest}/torn")]
    result = collected(store, keep_variant=lambda _, key: key == "new")
    assert names(result.removed) == [("variant", f"{digest}/old"), ("variant", f"{digest}/torn")]
    stores.assert_sound(store)


def test_temporary_files_are_judged_by_their_lock_alone(store):
    with atomic.staged(store.paths.tmp) as mine:
        abandoned = f"{store.paths.tmp}/t-abandoned"
        with open(abandoned, "wb") as file:
            file.write(bytes(9000))
        assert names(collected(store).removed) == [("temporary", "t-abandoned")]
        assert os.path.exists(mine) and not os.path.exists(abandoned)


def test_collecting_waits_for_imports_only_so_long(store):
    with flock.held(store.paths.lock, exclusive=False, timeout=1), pytest.raises(LockTimeout):
        gc.collect(store, gc.GcPlan(()), lock_timeout=0.01)


def test_nothing_is_collected_while_an_entry_cannot_be_read(store):
    stores.put(store, "a", 1)
    stores.put(store, "b", 2)
    Catalog(store.paths).remove("b:latest")
    plan = gc.plan(store)
    stores.flip(store.paths.entry("a:latest"), 100)
    before = stores.tree(store.root)
    for look in (lambda: gc.plan(store), lambda: gc.collect(store, plan)):
        with pytest.raises(Damaged, match="nothing can be collected"):
            look()
    assert stores.tree(store.root) == before
