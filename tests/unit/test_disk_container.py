"""The container as HDF5 tools see it, and the one equation it exists for: file offset = span_offset + region offset."""

import os

import h5py
import numpy as np
import pytest
from helpers import sources, stores
from helpers.sources import CodeSource, tensor
from hypothesis import given, settings
from hypothesis import strategies as st

from trims.disk.container import link_name
from trims.disk.ingest import import_model
from trims.manifest import ITEM_SIZES, STORAGE
from trims.paths import unescape


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def stored(store, source, **options):
    """(sidecar, path) of an imported source."""
    digest = import_model(store, source, "m", **options).entry.digest
    return stores.sidecar_of(store, digest), store.paths.container(digest)


def assert_back_to_back(sidecar, path):
    layout = sidecar.manifest.layout
    assert sidecar.span_offset % 4096 == 0 and os.path.getsize(path) % 4096 == 0
    with h5py.File(path) as file:
        for spec in sidecar.manifest.tensors:
            dataset = file["tensors"][link_name(spec.name)]
            if spec.nbytes:
                assert dataset.id.get_offset() == sidecar.span_offset + layout.tensors[spec.name]
        if layout.graph and layout.graph[1]:
            assert file["graph"].id.get_offset() == sidecar.span_offset + layout.graph[0]
        for name, (offset, nbytes) in layout.files.items():
            if nbytes:
                assert file["files"][link_name(name)].id.get_offset() == sidecar.span_offset + offset


def test_plain_h5py_reads_every_dtype_and_shape(store):
    arrays = {}
    for n, dtype in enumerate(ITEM_SIZES):
        storage = STORAGE.get(dtype, dtype)
        data = np.frombuffer(np.random.default_rng(n).bytes(6 * ITEM_SIZES[dtype]), "u1")
        arrays[dtype] = (data & 1).astype(bool) if dtype == "bool" else data.view(storage)
        arrays[dtype] = arrays[dtype].reshape(2, 3)
    tensors = [tensor(name, array, name) for name, array in arrays.items()]
    tensors += [tensor("scalar", np.array(4.5)), tensor("none", np.zeros((3, 0, 2), np.int8))]
    sidecar, path = stored(store, CodeSource(tensors))
    assert_back_to_back(sidecar, path)
    with h5py.File(path) as file:
        for name, array in arrays.items():
            dataset = file["tensors"][name]
            assert dataset.shape == (2, 3) and dataset[()].tobytes() == array.tobytes()
            assert dataset.dtype == array.dtype
            assert dataset.attrs.get("trims_dtype") == (name if name in STORAGE else None)
        assert file["tensors/scalar"][()] == 4.5 and file["tensors/none"].shape == (3, 0, 2)


def test_graph_files_ties_and_the_manifest_are_inside(store):
    source = sources.sample()
    sidecar, path = stored(store, source)
    assert_back_to_back(sidecar, path)
    with h5py.File(path) as file:
        assert file["tensors/conv1.weight"] == file["tensors"][link_name("tied/weight")]
        assert np.array_equal(file["tensors/conv1.weight"][()], sources.numbers(0, 300, 7))
        assert file["graph"][()].tobytes() == source.graph(sidecar.manifest.layout.tensors)
        deep = file["files"][link_name("deep/config.json")]
        assert deep[()].tobytes() == b"{}" and deep.attrs["trims_name"] == "deep/config.json"
        assert sidecar.digest.encode() in file["trims.json"][()]
        assert file.attrs["trims_digest"] == sidecar.digest


def test_the_span_of_the_file_is_the_region(store):
    sidecar, path = stored(store, sources.sample())
    with open(path, "rb") as file:
        file.seek(sidecar.span_offset)
        assert file.read(sidecar.span_nbytes) == stores.region(store, sidecar.digest)


HOSTILE = [
    *("a/b", ".", "..", "../../etc/passwd", "%2F", "tab\tnewline\n", "a\x00b", "ünïcode-权重"),
    *("n" * 1000, " ", "graph", "file x"),
]


def test_hostile_names_come_back(store):
    arrays = {name: np.full(3, n, np.int16) for n, name in enumerate(HOSTILE)}
    source = sources.source(arrays, graph=lambda _: b"the graph", files={"../x": b"1", "x": b"2"})
    sidecar, path = stored(store, source)
    assert_back_to_back(sidecar, path)
    with h5py.File(path) as file:
        assert sorted(map(unescape, file["tensors"])) == sorted(HOSTILE)
        for name, array in arrays.items():
            assert np.array_equal(file["tensors"][link_name(name)][()], array)
    stores.assert_sound(store)


def test_1300_tensors_and_none(store):
    rng = np.random.default_rng(3)
    sizes = rng.choice([0, 1, 3, 127, 128, 129, 511, 512, 513, 600, 4096], 1300)
    arrays = {f"layer.{n}.weight": rng.integers(0, 99, size, np.int32) for n, size in enumerate(sizes)}
    assert_back_to_back(*stored(store, sources.source(arrays)))
    sidecar, path = stored(store, CodeSource([]))
    assert sidecar.span_nbytes == 0 and sidecar.pieces == ()
    with h5py.File(path) as file:
        assert list(file["tensors"]) == []
    stores.assert_sound(store)


@settings(max_examples=40)
@given(st.lists(st.one_of(st.integers(0, 3000), st.sampled_from([2047, 2048, 2049, 4095, 4096, 70000])), max_size=30))
def test_any_sizes_lie_back_to_back(tmp_path_factory, sizes):
    store = stores.fresh(tmp_path_factory.mktemp("s") / "store")
    arrays = {f"t{n}": np.full(size, n + 1, np.uint8) for n, size in enumerate(sizes)}
    assert_back_to_back(*stored(store, sources.source(arrays)))


def test_a_compressed_container_describes_what_it_holds(store):
    weights = sources.numbers(1, 700, 900)
    arrays = {"w": weights, "noise": np.frombuffer(os.urandom(5 << 20), np.uint8), "step": np.array(7)}
    sidecar, path = stored(store, sources.source(arrays), codec="zstd")
    assert {frame.kind for frame in sidecar.frames} >= {"zstd-planes4", "raw"}
    assert os.path.getsize(path) < sidecar.span_nbytes
    with h5py.File(path) as file:
        assert file["tensors/w"].shape is None and list(file["tensors/w"].attrs["trims_shape"]) == [700, 900]
        assert file["tensors/w"].dtype == np.float32
        assert file["frames"].id.get_offset() == sidecar.frames[0].offset == sidecar.span_offset
        assert file["frames"].shape == (sum(frame.nbytes for frame in sidecar.frames),)
    start = sidecar.manifest.layout.tensors["w"]
    assert stores.region(store, sidecar.digest)[start : start + weights.nbytes] == weights.tobytes()


def test_a_container_and_its_sidecar_cannot_be_written(store):
    sidecar, path = stored(store, sources.sample())
    for name in (path, store.paths.sidecar(sidecar.digest)):
        assert os.stat(name).st_mode & 0o777 == 0o444
