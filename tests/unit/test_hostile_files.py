"""Files of every format that are missing, empty, cut, mutated, unreadable or no files at all: one line, exit 16.

A mutated file either gives tensors that can be read in full, or BadInput. Whatever else it gave would be a way in.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.capabilities import needs_torch, other_uid
from helpers.importing import mutate, refused, survives
from helpers.models import ModelFiles
from hypothesis import given, settings
from hypothesis import strategies as st

from trims.disk.importers import FORMATS, open_source
from trims.errors import BadInput

FILES = ["onnx", "onnx_external", "safetensors", "dtypes", "npz", "npy", "h5"]
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize("format", ["auto", *FORMATS])
def test_what_is_no_file_is_refused(tmp_path: Path, format: str) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    for name, words in [
        ("missing", "no such file"),
        ("missing/deeper", "no such file"),
        ("empty/deeper", "no such file"),
        ("dangling", "no such file"),
        ("empty", "it is empty"),
        ("directory", "without a model file"),
        ("fifo", "it is a FIFO"),
        ("x" * 300, "File name too long"),
    ]:
        assert words in str(refused(tmp_path / name, format=format))
    assert "it is a device" in str(refused("/dev/zero", format=format))
    assert "it is a device" in str(refused("/dev/tty", format=format))


def test_a_name_with_nul_or_without_unicode(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="NUL"):
        open_source("a\0b")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b.npz")
    Path(path).write_bytes(b"junk")
    with pytest.raises(BadInput, match="no known format") as caught:
        open_source(path)
    assert str(caught.value).isprintable()


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    uid = other_uid()
    path = tmp_path / "secret.npz"
    path.write_bytes(b"x")
    path.chmod(0)
    if uid is None:
        refused(path, "may not be read")
        return
    os.chmod(tmp_path, 0o755)
    # Into the directory first: the other user cannot reach it by its path.
    code = (
        f"import os; from trims.disk.importers.base import MappedFile\nos.chdir({str(tmp_path)!r}); os.setuid({uid})\n"
        "MappedFile('secret.npz')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip().endswith("it may not be read (check its owner and mode)")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("junk", [b"\0", b"PK\3\4", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"{}", bytes(range(256)) * 40])
def test_junk_is_refused_as_every_format(tmp_path: Path, format: str, junk: bytes) -> None:
    (tmp_path / "junk").write_bytes(junk)
    refused(tmp_path / "junk")
    refused(tmp_path / "junk", format=format)


@pytest.mark.parametrize("form", FILES)
def test_a_file_forced_to_another_format_is_refused(models: ModelFiles, form: str) -> None:
    with open_source(getattr(models, form)) as source:
        own = source.format
    for format in FORMATS:
        if format != own:
            refused(getattr(models, form), format=format)


@pytest.mark.parametrize("form", FILES)
def test_a_cut_file_is_refused_wherever_it_is_cut(models: ModelFiles, tmp_path: Path, form: str) -> None:
    data = getattr(models, form).read_bytes()
    path = tmp_path / "cut"
    for length in sorted({*range(1, 64), *range(64, len(data), len(data) // 40), len(data) - 1}):
        path.write_bytes(data[:length])
        if form == "h5":
            survives(path)  # HDF5 may not need the last bytes of its file
        else:
            refused(path)


def mutated(form: Path, seed: int, others: list[Path], format: str = "auto") -> None:
    with tempfile.TemporaryDirectory() as directory:
        for other in others:
            Path(directory, other.name).symlink_to(other)
        path = Path(directory, "m")
        path.write_bytes(mutate(form.read_bytes(), seed))
        survives(path)
        if format != "auto":
            survives(path, format)


@pytest.mark.parametrize("form", FILES)
@settings(max_examples=150)
@given(seed=seeds)
def test_a_mutated_file_is_refused_or_read(models: ModelFiles, form: str, seed: int) -> None:
    path = getattr(models, form)
    others = [models.onnx_external.parent / "cnn.bin"] if form == "onnx_external" else []
    format = {"onnx_external": "onnx", "dtypes": "safetensors"}.get(form, form)
    mutated(path, seed, others, format)


@pytest.fixture(scope="module")
def odd_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files that take the less common ways through the importers."""
    directory = tmp_path_factory.mktemp("odd")
    made = {"npz": directory / "c.npz", "h5": directory / "c.h5"}
    np.savez_compressed(made["npz"], a=np.arange(100, dtype=">i4"), b=np.asfortranarray(np.ones((4, 5))))
    with h5py.File(made["h5"], "w") as file:
        file.create_dataset("g/a", data=np.ones((50, 50)), chunks=(10, 10), compression="gzip")
        file["soft"] = h5py.SoftLink("/g/a")
    return made


@pytest.mark.parametrize("form", ["npz", "h5"])
@settings(max_examples=150)
@given(seed=seeds)
def test_a_mutated_compressed_file_is_refused_or_read(odd_files: dict[str, Path], form: str, seed: int) -> None:
    mutated(odd_files[form], seed, [], form)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    import torch

    directory = tmp_path_factory.mktemp("checkpoints")
    weights: dict[str, Any] = {"a": torch.randn(5, 3), "b": torch.randn(4).bfloat16(), "n": {"c": torch.ones(2).half()}}
    weights["tied"] = weights["a"].t()
    torch.save(weights, directory / "zip")
    torch.save(weights, directory / "legacy", _use_new_zipfile_serialization=False)
    return {name: directory / name for name in ("zip", "legacy")}


@pytest.mark.torch
@needs_torch
@pytest.mark.parametrize("form", ["zip", "legacy"])
@settings(max_examples=200)
@given(seed=seeds)
def test_a_mutated_checkpoint_is_refused_or_read(checkpoints: dict[str, Path], form: str, seed: int) -> None:
    mutated(checkpoints[form], seed, [], "torch")


@given(st.binary(max_size=400), st.sampled_from(["auto", *FORMATS]))
@settings(max_examples=200)
def test_any_bytes_are_refused_or_read(data: bytes, format: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m")
        path.write_bytes(data)
        survives(path, format)


def test_a_closed_source_reads_nothing(models: ModelFiles) -> None:
    with open_source(models.safetensors) as source:
        read = source.tensors[0].read
        assert len(read())
    with pytest.raises(BadInput, match="are wanted"):
        read()
