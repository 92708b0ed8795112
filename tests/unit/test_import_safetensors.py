"""safetensors files of the real library, sharded models and hub directories, read by our own parser."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import models as model_files
from helpers.importing import contents, expected, load, refused
from helpers.models import ModelFiles, write_safetensors, write_sharded
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trims.disk.importers import open_source
from trims.errors import BadInput, UsageError

DTYPES = ["bool", "i1", "<i2", "<i4", "<i8", "u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8"]
arrays = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda n: n != "__metadata__"),
    st.sampled_from(DTYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    ),
    min_size=1,
    max_size=6,
)


def test_reads_every_tensor_in_order_of_name(models: ModelFiles) -> None:
    with open_source(models.safetensors) as source:
        assert source.format == "safetensors"
        assert [tensor.name for tensor in source.tensors] == sorted(model_files.arrays())
        assert contents(source) == expected(model_files.arrays())
        assert source.origin["metadata"] == {"format": "np"}
        assert source.origin["nbytes"] == models.safetensors.stat().st_size


def test_reads_every_dtype(models: ModelFiles) -> None:
    assert load(models.dtypes) == expected(model_files.every_dtype())


def test_a_tensor_is_a_view_of_the_file(models: ModelFiles) -> None:
    with open_source(models.safetensors) as source:
        view = source.tensors[0].read()
        assert view.readonly
        assert type(view.obj).__name__ == "mmap"


def test_views_outlive_their_source(models: ModelFiles) -> None:
    with open_source(models.safetensors) as source:
        views = {tensor.name: tensor.read() for tensor in source.tensors}
    for name, array in model_files.arrays().items():
        assert bytes(views[name]) == array.tobytes()


@given(arrays)
def test_reads_what_the_library_writes(given: dict[str, Any]) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.safetensors")
        numpy.save_file({name: np.ascontiguousarray(array).reshape(array.shape) for name, array in given.items()}, path)
        assert load(path) == expected(given)


def test_metadata_too_large_for_a_listing_becomes_a_side_file(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "m", model_files.arrays(), {"notes": "x" * 100_000})
    with open_source(path) as source:
        assert "metadata" not in source.origin
        assert json.loads(source.files["safetensors.metadata.json"]) == {"notes": "x" * 100_000}


@pytest.mark.parametrize("name", ["", "model.safetensors.index.json"])
def test_reads_a_sharded_model_by_directory_or_index(models: ModelFiles, name: str) -> None:
    with open_source(models.sharded / name) as source:
        assert contents(source) == expected(model_files.arrays())
        assert list(source.files) == ([] if name else ["config.json"])
        assert len(source.origin["shards"]) == 2


def test_a_sharded_model_is_that_of_one_file(models: ModelFiles) -> None:
    """The same tensors in the same order: so the same digest."""
    with open_source(models.sharded) as sharded, open_source(models.safetensors) as whole:
        assert [t.name for t in sharded.tensors] == [t.name for t in whole.tensors]


def test_reads_a_hub_checkout_of_links_into_one_directory(tmp_path: Path, models: ModelFiles) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(models.sharded.iterdir())):
        (blobs / str(number)).write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    with open_source(snapshot) as source:
        assert contents(source) == expected(model_files.arrays())
        assert source.files == {"config.json": b'{"model_type": "small"}'}


def test_a_directory_with_one_file_brings_its_tokenizer(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "model.safetensors", model_files.arrays())
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("a\n")
    (tmp_path / "train.py").write_text("print()")
    (tmp_path / ".hidden.json").write_text("{}")
    with open_source(tmp_path) as source:
        assert source.files == {"tokenizer.json": b"{}", "vocab.txt": b"a\n"}
        assert source.origin["path"] == str(tmp_path)


def test_a_directory_with_several_models_is_not_guessed_about(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_safetensors(tmp_path / f"{name}.safetensors", model_files.arrays())
    refused(tmp_path, "several models", "a.safetensors")


def test_the_content_decides_not_the_suffix(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "weights.onnx", model_files.arrays())
    assert load(path) == expected(model_files.arrays())
    refused(path, "no ONNX model", format="onnx")
    with pytest.raises(UsageError):
        open_source(path, "tensorflow")


def test_a_forced_index_is_a_safetensors(models: ModelFiles) -> None:
    index = models.sharded / "model.safetensors.index.json"
    assert load(index, "safetensors") == expected(model_files.arrays())


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("../secret.safetensors", "no file of its own directory"),
        ("/etc/hostname", "no file of its own directory"),
        ("link.safetensors", "leads out of its directory"),
        ("sub/link", "leads out of its directory"),
        ("gone.safetensors", "no such file"),
        ("", "no file of its own directory"),
        ("a\0b", "no file of its own directory"),
    ],
)
def test_an_index_cannot_escape_its_directory(tmp_path: Path, where: str, words: str) -> None:
    outside = write_safetensors(tmp_path / "secret.safetensors", model_files.arrays())
    directory = write_sharded(tmp_path / "m", model_files.arrays())
    (directory / "link.safetensors").symlink_to(outside)
    (directory / "sub").mkdir()
    (directory / "sub" / "link").symlink_to(outside)
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"embed.weight": where}}))
    with pytest.raises(BadInput, match=words):
        load(index)


def test_an_index_must_be_true(tmp_path: Path) -> None:
    directory = write_sharded(tmp_path / "m", model_files.arrays())
    index = directory / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    first = "model-00001-of-00002.safetensors"
    for bad, word in [
        ({"weight_map": {**good["weight_map"], "absent": first}}, "lacks the tensor 'absent'"),
        ({"weight_map": {"a": 1}}, "no weight_map"),
        ({"weights": {}}, "no weight_map"),
        ({"weight_map": {}}, "holds no tensors"),
    ]:
        index.write_text(json.dumps(bad))
        refused(index, word)


def test_two_shards_with_one_tensor_are_refused(tmp_path: Path) -> None:
    directory = write_sharded(tmp_path / "m", model_files.arrays())
    for file in directory.glob("*.safetensors"):
        write_safetensors(file, model_files.arrays())
    refused(directory, "two tensors named")


def test_a_side_file_cannot_be_a_link_out(tmp_path: Path, models: ModelFiles) -> None:
    directory = write_sharded(tmp_path / "m", model_files.arrays())
    (tmp_path / "secret.json").write_text("{}")
    (directory / "tokenizer.json").symlink_to(tmp_path / "secret.json")
    refused(directory, "tokenizer.json", "leads out")


def test_a_fifo_among_the_side_files_is_refused_without_waiting(tmp_path: Path) -> None:
    directory = write_sharded(tmp_path / "m", model_files.arrays())
    os.mkfifo(directory / "tokenizer.json")
    with pytest.raises(BadInput, match="it is a FIFO"):
        load(directory)
