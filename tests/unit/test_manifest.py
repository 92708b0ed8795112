from __future__ import annotations

import json
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from trims.errors import BadInput, Damaged, StoreTooNew
from trims.manifest import (
    ALIGNMENT,
    ITEM_SIZES,
    STORAGE,
    BlobSpec,
    Manifest,
    TensorSpec,
    align,
    canonical_json,
    check_tensor,
    parse_table,
    table_bytes,
)

digests = st.sampled_from([blake3(bytes([n])).hexdigest() for n in range(4)])
texts = st.text(st.characters(codec=None), min_size=1, max_size=12)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(texts, unique=True, max_size=8))
    tensors = tuple(
        TensorSpec(
            name,
            draw(st.sampled_from(sorted(ITEM_SIZES))),
            tuple(draw(st.lists(st.integers(0, 9), max_size=3))),
            draw(digests),
        )
        for name in names
    )
    graph = draw(st.none() | st.builds(BlobSpec, st.just("graph"), st.integers(0, 5000), digests))
    files = draw(
        st.lists(st.builds(BlobSpec, texts, st.integers(0, 5000), digests), unique_by=lambda f: f.name, max_size=3)
    )
    return Manifest(tensors, graph, tuple(files))


@given(manifests())
def test_the_layout_is_aligned_disjoint_and_complete(manifest: Manifest) -> None:
    layout = manifest.layout
    end = 0
    for _, offset, nbytes in layout.stored:
        assert offset % ALIGNMENT == 0 and offset >= end
        end = offset + nbytes
    assert end <= layout.nbytes < end + ALIGNMENT or layout.nbytes == 0
    assert layout.nbytes % ALIGNMENT == 0
    at = {offset: nbytes for _, offset, nbytes in layout.stored if nbytes}
    for t in manifest.tensors:
        if t.nbytes:
            assert at[layout.tensors[t.name]] == t.nbytes
    assert (layout.graph is None) == (manifest.graph is None)
    assert set(layout.files) == {f.name for f in manifest.files}


@given(manifests())
def test_only_tied_tensors_share(manifest: Manifest) -> None:
    offsets: dict[int, set[tuple[object, ...]]] = {}
    for t in manifest.tensors:
        if t.nbytes:
            offsets.setdefault(manifest.layout.tensors[t.name], set()).add((t.digest, t.dtype, t.shape))
    contents = {(t.digest, t.dtype, t.shape) for t in manifest.tensors if t.nbytes}
    assert all(len(found) == 1 for found in offsets.values())
    assert len(offsets) == len(contents)


@given(manifests(), st.data())
def test_every_stored_byte_has_a_holder(manifest: Manifest, data: st.DataObject) -> None:
    layout = manifest.layout
    for name, offset, nbytes in layout.stored:
        if nbytes:
            assert layout.holder(offset + data.draw(st.integers(0, nbytes - 1))) == name
    assert layout.holder(layout.nbytes) is None


@given(manifests())
def test_json_round_trips(manifest: Manifest) -> None:
    again = Manifest.from_dict(json.loads(manifest.canonical))
    assert again.canonical == manifest.canonical and again.digest == manifest.digest
    assert sorted(again.files, key=str) == sorted(manifest.files, key=str)
    assert again.tensors == manifest.tensors and again.graph == manifest.graph


@given(manifests())
def test_the_region_table_says_where_everything_is(manifest: Manifest) -> None:
    table = parse_table(memoryview(table_bytes(manifest)))
    layout = manifest.layout
    assert [(n, d, tuple(s), o) for n, d, s, o in table.rows()] == [
        (t.name, t.dtype, t.shape, layout.tensors[t.name]) for t in manifest.tensors
    ]
    assert table.index == {t.name: n for n, t in enumerate(manifest.tensors)}
    assert table.graph == (list(layout.graph) if layout.graph else None)
    assert {name: tuple(at) for name, at in table.files.items()} == layout.files
    assert table.data["digest"] == manifest.digest
    assert table.manifest.digest == manifest.digest


def test_a_frozen_digest() -> None:
    """A model's identity may never change: every store in the world would lose its names."""
    manifest = Manifest(
        (
            TensorSpec("w", "float32", (2, 3), blake3(b"w").hexdigest()),
            TensorSpec("b/\u00e9", "bfloat16", (), blake3(b"b").hexdigest()),
        ),
        BlobSpec("graph", 7, blake3(b"g").hexdigest()),
        (BlobSpec("labels.txt", 5, blake3(b"l").hexdigest()),),
    )
    assert manifest.canonical.startswith(b'{"digests":["')
    assert manifest.digest == "09fd0cfc2874e00fb640d701630859ea659d6281f2999859c2844740f9ae9747"
    assert manifest.layout.tensors == {"w": 0, "b/\u00e9": 512}
    assert manifest.layout.graph == (1024, 7) and manifest.layout.files == {"labels.txt": (1536, 5)}
    assert manifest.layout.nbytes == 2048 and manifest.nbytes == 26


def test_order_is_identity() -> None:
    a, b = (TensorSpec(name, "int8", (1,), blake3(name.encode()).hexdigest()) for name in "ab")
    assert Manifest((a, b)).digest != Manifest((b, a)).digest


VALID: dict[str, Any] = Manifest((TensorSpec("w", "float32", (2,), "00"),)).to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"names": None},
        {"names": ["a", "b"]},
        {"dtypes": ["float31"]},
        {"dtypes": [[]]},
        {"shapes": [5]},
        {"shapes": [["2"]]},
        {"shapes": [[-1]]},
        {"shapes": [[True]]},
        {"graph": [1, "00", 3]},
        {"graph": 5},
        {"files": []},
        {"files": {"a": 3}},
        {"files": {"a": []}},
        {"format": None},
        {"format": 1},
    ],
)
def test_a_damaged_manifest_is_told(change: dict[str, Any]) -> None:
    with pytest.raises(Damaged):
        Manifest.from_dict(VALID | change)


@pytest.mark.parametrize("data", [None, [], "x", 3, {}])
def test_what_is_no_manifest(data: object) -> None:
    with pytest.raises(Damaged):
        Manifest.from_dict(data)


def test_a_newer_manifest_is_named() -> None:
    with pytest.raises(StoreTooNew, match=r"trims\.manifest/2.*trims\.manifest/1"):
        Manifest.from_dict(VALID | {"format": "trims.manifest/2"})


@pytest.mark.parametrize(
    ("name", "dtype", "shape"),
    [
        ("", "int8", ()),
        ("w", "object", ()),
        ("w", "int8", (-1,)),
        ("w", "int8", (1,) * 33),
        ("w" * 1025, "int8", ()),
        ("\ud800" * 400, "int8", ()),
    ],
)
def test_tensors_that_cannot_be_stored(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput):
        check_tensor(name, dtype, shape)


def test_storage_types_are_as_wide() -> None:
    assert all(ITEM_SIZES[plain] == ITEM_SIZES[name] for name, plain in STORAGE.items())
    check_tensor("\ud800", "bfloat16", (0, 3))


def test_canonical_json_is_canonical() -> None:
    assert canonical_json({"b": 1, "a": ["\u00e9", None]}) == b'{"a":["\\u00e9",null],"b":1}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


@given(st.integers(0, 1 << 50), st.sampled_from([1, 512, 4096]))
def test_align(offset: int, to: int) -> None:
    assert align(offset, to) % to == 0 and 0 <= align(offset, to) - offset < to
