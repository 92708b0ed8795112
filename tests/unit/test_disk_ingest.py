import os
import threading

import numpy as np
import pytest
from helpers import sources, stores
from helpers.sources import CodeSource, CodeTensor, tensor

from trims.disk import ingest
from trims.disk.catalog import Catalog
from trims.disk.ingest import import_model, import_variant
from trims.disk.parts import parts
from trims.disk.store import open_store
from trims.errors import BadInput, Damaged, LockTimeout, NoSpace, NoSuchModel, UsageError
from trims.linux import flock


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_what_is_imported_is_what_is_read(store, codec):
    source = sources.sample(3)
    result = import_model(store, source, "m", codec=codec, labels={"a": "b"})
    entry, region = result.entry, stores.region(store, result.entry.digest)
    manifest = stores.sidecar_of(store, entry.digest).manifest
    for made in source.tensors:
        start = manifest.layout.tensors[made.name]
        assert region[start : start + len(made.read())] == bytes(made.read())
    start, nbytes = manifest.layout.files["labels.txt"]
    assert region[start : start + nbytes] == b"cat\ndog\n"
    assert Catalog(store.paths).resolve("m") == entry
    assert (entry.codec, entry.labels, entry.origin_format) == (codec, {"a": "b"}, "onnx")
    assert entry.stored == os.path.getsize(store.paths.container(entry.digest)) == result.stored
    assert result.deduplicated == 300 * 7 * 4 and not result.already
    stores.assert_sound(store)
    assert os.listdir(store.paths.tmp) == []


def test_the_codec_does_not_change_what_a_model_is(store):
    raw = stores.put(store, "raw")
    again = stores.put(store, "again", codec="zstd")
    assert again.already and again.entry.digest == raw.entry.digest and again.entry.codec == "none"
    assert again.stored == 0 and again.deduplicated == again.nbytes_in


def test_the_same_again_changes_nothing(store):
    first = stores.put(store)
    inode = os.stat(store.paths.container(first.entry.digest)).st_ino
    second = stores.put(store)
    assert second.already and second.entry == first.entry
    assert os.stat(store.paths.container(first.entry.digest)).st_ino == inode


def test_importing_again_repairs(store):
    result = stores.put(store)
    path = store.paths.container(result.entry.digest)
    stores.flip(path, 8 * stores.sidecar_of(store, result.entry.digest).span_offset)
    with pytest.raises(Damaged):
        stores.region(store, result.entry.digest)
    assert not stores.put(store).already
    stores.assert_sound(store)
    stores.flip(store.paths.entry("m:latest"), 100)
    stores.put(store)
    stores.assert_sound(store)


def test_if_exists(store):
    first = stores.put(store, seed=1).entry
    with pytest.raises(UsageError, match="m:latest exists"):
        stores.put(store, seed=2, if_exists="fail")
    assert stores.put(store, seed=2, if_exists="skip").entry == first
    assert stores.put(store, seed=2, if_exists="replace").entry.digest != first.digest
    with pytest.raises(UsageError):
        stores.put(store, seed=2, if_exists="perhaps")
    with pytest.raises(UsageError):
        stores.put(store, seed=2, codec="lz4")


def test_progress_ends_at_the_whole_and_never_goes_back(store):
    seen = []
    stores.put(store, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize(
    "bad",
    [
        CodeTensor("w", "float32", (4,), lambda: memoryview(bytes(15))),
        CodeTensor("w", "int4", (4,), lambda: memoryview(bytes(2))),
        CodeTensor("w", "int8", (-1,), lambda: memoryview(b"")),
        CodeTensor("w\ud800", "int8", (1,), lambda: memoryview(b"1")),
        CodeTensor("", "int8", (1,), lambda: memoryview(b"1")),
        CodeTensor("twice", "int8", (1,), lambda: memoryview(b"1")),
    ],
)
def test_a_bad_tensor_leaves_nothing(store, bad):
    before = stores.tree(store.root)
    with pytest.raises(BadInput):
        import_model(store, CodeSource([tensor("twice", np.zeros(3)), bad]), "m")
    assert stores.tree(store.root) == before


def test_a_source_that_fails_half_way_leaves_nothing(store):
    before = stores.tree(store.root)
    reads = []

    def read():
        reads.append(1)
        if len(reads) > 1:
            raise BadInput("the file changed under us")
        return memoryview(bytes(8 << 20))

    source = CodeSource([CodeTensor("a", "int8", (8 << 20,), read)])
    with pytest.raises(BadInput, match="changed under us"):
        import_model(store, source, "m")
    assert stores.tree(store.root) == before


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_source_that_changes_between_its_two_readings_is_refused(store, codec):
    before, versions = stores.tree(store.root), iter([bytes(9000), b"\1" * 9000])
    source = CodeSource([tensor("a", np.ones(3)), CodeTensor("b", "int8", (9000,), lambda: memoryview(next(versions)))])
    with pytest.raises(BadInput, match="b changed while it was imported"):
        import_model(store, source, "m", codec=codec)
    assert stores.tree(store.root) == before


def test_a_file_whose_name_is_no_unicode_is_refused(store):
    with pytest.raises(BadInput, match="no valid Unicode"):
        import_model(store, CodeSource([], files={"x\udcff": b""}), "m")


def test_too_large_for_the_disk_is_refused_before_the_work(store, monkeypatch):
    disk = os.statvfs(store.root)
    free = disk.f_bavail * disk.f_frsize
    huge = np.broadcast_to(np.zeros(1, np.uint8), (free + 1,))
    lazy = CodeTensor("w", "uint8", huge.shape, lambda: pytest.fail("it was read"))
    model = _Sized(lazy)
    with pytest.raises(NoSpace) as caught:
        ingest._check_space(store, model)
    assert caught.value.details["need"] > free and caught.value.exit_code == 15


class _Sized:
    """Only what the check of space looks at: a model too large to make."""

    def __init__(self, big):
        from trims.manifest import Manifest, TensorSpec

        self.manifest = Manifest((TensorSpec(big.name, big.dtype, big.shape, "0" * 64),))


def test_importers_at_once_of_one_ref_and_one_content(store):
    gate, results, errors = threading.Barrier(4), [], []

    def work(seed):
        try:
            gate.wait(10)
            results.append(stores.put(open_store(store.root), "m", seed))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n % 2,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [] and len(results) == 4
    assert len({result.entry.digest for result in results}) == 2
    stores.assert_sound(store)
    assert os.listdir(store.paths.tmp) == []


def test_an_import_waits_for_the_collector_only_so_long(store):
    with flock.held(store.paths.lock, exclusive=True, timeout=1), pytest.raises(LockTimeout):
        stores.put(store, lock_timeout=0.01)


def test_a_variant_belongs_to_its_model(store):
    digest = stores.put(store).entry.digest
    made = import_variant(store, digest, "ort-1.32-cpu", sources.sample(9))
    assert made.origin["base"] == digest and made.manifest.graph is not None
    inode = os.stat(store.paths.variant(digest, "ort-1.32-cpu")).st_ino
    assert import_variant(store, digest, "ort-1.32-cpu", sources.sample(9)) == made
    assert os.stat(store.paths.variant(digest, "ort-1.32-cpu")).st_ino == inode
    stores.assert_sound(store)
    with pytest.raises(NoSuchModel):
        import_variant(store, "0" * 64, "k", sources.sample())
    for key in ("", "../x", ".x", "a/b"):
        with pytest.raises(UsageError):
            import_variant(store, digest, key, sources.sample())


def test_a_tensor_called_graph_is_no_graph(store):
    source = sources.source({"graph": np.arange(4), "file x": np.arange(5)}, graph=lambda _: b"G", files={"x": b"F"})
    digest = import_model(store, source, "m").entry.digest
    sidecar, region = stores.sidecar_of(store, digest), stores.region(store, digest)
    held = [
        (part.name, part.dtype, region[part.offset : part.offset + part.nbytes]) for part in parts(sidecar.manifest)
    ]
    assert held == [
        ("graph", "int64", np.arange(4).tobytes()),
        ("file x", "int64", np.arange(5).tobytes()),
        ("graph", "", b"G"),
        ("file x", "", b"F"),
    ]
