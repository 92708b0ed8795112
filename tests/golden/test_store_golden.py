"""A store of format 1, made once and kept: every later version must read it, and understand every byte the same way.

`store-1` holds `sample(7)` of tests/helpers/sources.py as `raw`, and `sample(8)` as `small:zstd`, which is compressed,
with a variant `ort-x` of the first. It is never made again; a format that changes gets a store of its own beside it.
"""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import sources, stores

from trims import manifest
from trims.disk import catalog, container, sidecar, snapshot
from trims.disk import store as store_format
from trims.disk.catalog import Catalog
from trims.disk.reader import read_blob
from trims.disk.sidecar import read_sidecar
from trims.disk.store import open_store
from trims.manifest import BlobSpec, Manifest, TensorSpec

GOLDEN = Path(__file__).parent / "store-1"
RAW = "a273719ca0e40ca2562d084d01b0e7326180c4afd40edc67544fd7942add5403"
SMALL = "e98c9ff1e97871ec66af9a488046dc4de9f64d8c4201c94021553f6b424c7787"


@pytest.fixture
def store(store_root):
    shutil.copytree(GOLDEN, store_root)
    for name in ("tmp", "locks"):
        (store_root / name).mkdir(exist_ok=True)
    return open_store(str(store_root))


def test_it_is_sound_and_lists_as_it_did(store):
    stores.assert_sound(store)
    assert {e.ref: e.digest for e in Catalog(store.paths).entries()} == {"raw:latest": RAW, "small:zstd": SMALL}
    item = json.loads(snapshot.listing(store.paths)[0][2] + "}")
    assert item == {
        "name": "raw:latest",
        "id": RAW,
        "format": "onnx",
        "tensors": 6,
        "nbytes": 15872,
        "stored": 32768,
        "codec": "none",
        "created": item["created"],
        "labels": {"kind": "golden"},
    }
    assert item["created"].endswith("Z") and item["created"].startswith("20")


@pytest.mark.parametrize(("digest", "seed"), [(RAW, 7), (SMALL, 8)])
def test_its_regions_hold_what_was_imported(store, digest, seed):
    region, source = stores.region(store, digest), sources.sample(seed)
    offsets = stores.sidecar_of(store, digest).manifest.layout.tensors
    for made in source.tensors:
        start = offsets[made.name]
        assert region[start : start + len(made.read())] == bytes(made.read())
    path = store.paths.container(digest)
    assert read_blob(path, stores.sidecar_of(store, digest), "graph") == source.graph(offsets)
    assert read_blob(path, stores.sidecar_of(store, digest), "file labels.txt") == b"cat\ndog\n"


def test_the_layout_of_the_raw_container_is_what_the_format_says(store):
    raw = stores.sidecar_of(store, RAW)
    assert raw.span_offset % 4096 == 0 and raw.piece_nbytes == 4 << 20 and len(raw.pieces) == 1
    assert raw.manifest.layout.tensors == {
        "conv1.weight": 0,
        "tied/weight": 0,
        "embedding": 8704,
        "step": 13312,
        "empty": 13824,
        "mask": 13824,
    }
    with h5py.File(store.paths.container(RAW)) as file:
        assert np.array_equal(file["tensors/conv1.weight"][()], sources.numbers(7, 300, 7))
        assert file["tensors/embedding"].attrs["trims_dtype"] == "bfloat16"


def test_the_variant_is_read(store):
    variant = read_sidecar(store.paths.variant_sidecar(RAW, "ort-x"))
    assert variant.origin["base"] == RAW and variant.manifest.graph is not None


def test_the_digest_of_a_fixed_manifest_never_changes():
    fixed = Manifest(
        (
            TensorSpec("b", "float32", (2, 3), "11" * 32),
            TensorSpec("a\u00e9/\U0001f600", "bfloat16", (), "22" * 32),
            TensorSpec("empty", "bool", (0,), "33" * 32),
        ),
        BlobSpec("graph", 5, "44" * 32),
        (BlobSpec("x", 1, "55" * 32),),
    )
    assert fixed.digest == "6876c1d769e552c2d85e8cffeced8948b01f802a6b5a7d1816231c0a51817ae3"


def test_the_format_page_says_the_numbers_that_the_code_uses():
    page = (Path(__file__).parents[2] / "man/man5/trims-store.5").read_text()
    numbers = (sidecar.PIECE, manifest.ALIGNMENT, container.BLOCK, snapshot.SLACK // 10**6)
    formats = (sidecar.FORMAT, manifest.FORMAT, catalog.FORMAT, snapshot.MAGIC, f'"format":{store_format.FORMAT}')
    for word in (*map(str, numbers), *formats, store_format.MAGIC):
        assert word in page
    fields = json.loads((GOLDEN / "containers" / RAW[:2] / f"{RAW}.json").read_text())
    for name in ("format", "digest", "manifest", "origin", "created"):
        assert name in fields and name in page
    assert {f"layout.{key}" for key in fields["layout"]} <= set(page.split())
    assert {f"container.{key}" for key in fields["container"]} <= set(page.split())
    entry = json.loads(next((GOLDEN / "catalog").rglob("raw*.json")).read_text())
    assert set(entry) - {"checksum"} <= set(page.replace(",", " ").split())
    head = (GOLDEN / "containers" / RAW[:2] / f"{RAW}.h5").read_bytes()[:16]
    assert f"{head[:8].hex(' ')}  {head[8:].hex(' ')}" in page
