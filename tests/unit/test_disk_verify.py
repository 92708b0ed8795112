import os
import random

import numpy as np
import pytest
from helpers import sources, stores

from trims.disk.ingest import import_model, import_variant
from trims.disk.parts import parts
from trims.disk.verify import Finding, verify_model, verify_store


@pytest.fixture
def store(store_root):
    return stores.fresh(store_root)


def holder(sidecar, offset):
    """What the byte at this offset of an uncompressed container belongs to."""
    for part in parts(sidecar.manifest):
        if part.offset <= offset - sidecar.span_offset < part.offset + part.nbytes:
            return part.name
    return "container"


def test_a_flipped_bit_anywhere_in_a_container_is_found_and_named(store):
    entry = stores.put(store).entry
    sidecar, path = stores.sidecar_of(store, entry.digest), store.paths.container(entry.digest)
    size, rng = os.path.getsize(path), random.Random(4)
    borders = [sidecar.span_offset + at for p in parts(sidecar.manifest) for at in (p.offset, p.offset + p.nbytes)]
    offsets = {0, size - 1, *borders, *(at - 1 for at in borders), *(rng.randrange(size) for _ in range(400))}
    named = set()
    for offset in sorted(offsets):
        bit = offset * 8 + rng.randrange(8)
        stores.flip(path, bit)
        findings = verify_model(store, entry)
        assert [(f.model, f.part) for f in findings] == [("m:latest", holder(sidecar, offset))]
        named.add(findings[0].part)
        stores.flip(path, bit)
    assert named >= {"container", "graph", "file labels.txt", "conv1.weight", "embedding", "step", "mask"}
    stores.assert_sound(store)


def test_a_flipped_bit_anywhere_in_a_compressed_container_is_found(store):
    arrays = {"a": sources.numbers(1, 900), "b": sources.bfloat16(sources.numbers(2, 900)), "z": np.zeros(9000, "u1")}
    entry = import_model(store, sources.source(arrays), "m", codec="zstd").entry
    path, rng = store.paths.container(entry.digest), random.Random(5)
    for offset in rng.sample(range(os.path.getsize(path)), 400):
        stores.flip(path, offset * 8 + offset % 8)
        assert {f.part for f in verify_model(store, entry)} <= {"a", "b", "z", "container"}
        assert verify_model(store, entry)
        stores.flip(path, offset * 8 + offset % 8)
    stores.assert_sound(store)


@pytest.mark.parametrize("kind", ["sidecar", "entry"])
def test_a_flipped_bit_anywhere_in_the_small_files_is_found(store, kind):
    entry = stores.put(store).entry
    path = store.paths.sidecar(entry.digest) if kind == "sidecar" else store.paths.entry(entry.ref)
    for offset in range(os.path.getsize(path)):
        stores.flip(path, offset * 8 + offset % 8)
        [finding] = verify_store(store, quick=True)
        assert (finding.model, finding.part) == ("m:latest", "sidecar" if kind == "sidecar" else "catalog")
        stores.flip(path, offset * 8 + offset % 8)
    stores.assert_sound(store)


def test_quick_sees_everything_but_the_data(store):
    entry = stores.put(store).entry
    sidecar, path = stores.sidecar_of(store, entry.digest), store.paths.container(entry.digest)
    stores.flip(path, 8 * sidecar.span_offset)
    assert verify_model(store, entry, quick=True) == []
    stores.flip(path, 8)
    assert [f.part for f in verify_model(store, entry, quick=True)] == ["container"]
    assert [f.part for f in verify_model(store, entry)] == ["container", "conv1.weight"]


def test_variants_are_checked_with_their_model(store):
    entry = stores.put(store).entry
    made = import_variant(store, entry.digest, "ort-x", sources.sample(8))
    assert verify_model(store, entry.digest) == []
    stores.flip(store.paths.variant(entry.digest, "ort-x"), 8 * made.span_offset)
    [finding] = verify_store(store)
    assert (finding.model, finding.part) == ("m:latest variant ort-x", "conv1.weight")
    [finding] = verify_model(store, entry.digest)
    assert finding.model == f"id:{entry.digest} variant ort-x"


@pytest.mark.parametrize(("missing", "part"), [("container", "container"), ("sidecar", "sidecar")])
def test_missing_files_are_findings(store, missing, part):
    entry = stores.put(store).entry
    os.unlink(getattr(store.paths, missing)(entry.digest))
    assert [f.part for f in verify_store(store)] == [part]


def test_swapped_files_are_found(store):
    a, b = stores.put(store, "a", 1).entry, stores.put(store, "b", 2).entry
    os.rename(store.paths.sidecar(a.digest), store.paths.sidecar(b.digest))
    os.rename(store.paths.container(a.digest), store.paths.container(b.digest))
    assert {(f.model, f.part) for f in verify_store(store)} == {("a:latest", "sidecar"), ("b:latest", "sidecar")}


def test_a_model_with_two_refs_is_read_once(store):
    stores.put(store, "a")
    stores.put(store, "b")
    read = []
    assert verify_store(store, progress=read.append) == []
    assert sum(read) == stores.sidecar_of(store, stores.put(store, "a").entry.digest).span_nbytes


def test_findings_of_a_store_do_not_hide_each_other(store):
    entries = [stores.put(store, f"m{n}", n).entry for n in range(3)]
    stores.flip(store.paths.entry("m0:latest"), 100)
    stores.flip(store.paths.sidecar(entries[1].digest), 100)
    findings = verify_store(store)
    assert all(isinstance(finding, Finding) and finding.message for finding in findings)
    assert {(f.model, f.part) for f in findings} == {("m0:latest", "catalog"), ("m1:latest", "sidecar")}


def test_a_flipped_bit_that_decodes_to_the_same_is_still_found(store):
    """Bit 4 of a zstd frame's descriptor means nothing to a decoder (RFC 8878, 3.1.1.1.1.4)."""
    entry = import_model(store, sources.source({"z": np.zeros(9000, "u1")}), "m", codec="zstd").entry
    [frame] = stores.sidecar_of(store, entry.digest).frames
    region = stores.region(store, entry.digest)
    stores.flip(store.paths.container(entry.digest), 8 * (frame.offset + 4) + 4)
    assert stores.region(store, entry.digest) == region
    assert [finding.part for finding in verify_model(store, entry)] == ["container"]
