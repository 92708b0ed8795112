"""What requests compute: the same number from the file and from shared memory, and any damaged byte changes it."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import models as model_files
from helpers import pages
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import create_store
from trims.errors import UsageError
from trims.linux import pagecache
from trims.workload import coldness
from trims.workload.functions import READS, Job, function, weights


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_total_is_the_sum_of_words_and_of_the_rest(parts: list[bytes]) -> None:
    wanted = 0
    for part in parts:
        whole = len(part) // 8 * 8
        wanted += sum(int.from_bytes(part[at : at + 8], "little") for at in range(0, whole, 8)) + sum(part[whole:])
    arrays = [np.frombuffer(part, np.uint8) for part in parts]
    assert weights.total(arrays) == weights.total(arrays[::-1]) == wanted % (1 << 64)


def test_total_reads_every_byte_of_any_dtype_and_layout() -> None:
    rng = np.random.default_rng(0)
    for array in (
        rng.random((3, 5)).astype(np.float16), rng.random(7).astype(ml_dtypes.bfloat16), np.float64(0.5).reshape(()),
        rng.random((4, 6))[:, ::2], np.zeros((0, 3), np.float32), np.array([True, False, True]),
    ):  # fmt: skip
        raw = np.frombuffer(array.tobytes(), np.uint8)
        assert weights.total([array]) == weights.total([raw])
        for at in range(len(raw)):
            changed = raw.copy()
            changed[at] ^= 1
            assert weights.total([changed]) != weights.total([raw])


@pytest.fixture
def job(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A safetensors file with odd sizes, in the store in effect; opened from its files, as no manager runs."""
    rng = np.random.default_rng(1)
    path, root = tmp_path / "m.safetensors", home / "store"
    save_file(
        {"a": rng.random(1001).astype(np.float32), "b": rng.random((3, 7)), "c": np.arange(5, dtype=np.uint8)}, path
    )
    monkeypatch.setenv("TRIMS_STORE", str(root))
    with open_source(path) as source:
        import_model(create_store(str(root)), source, "m")
    return Job("m", str(path), place="disk", timeout=5)


@pytest.mark.parametrize("name", ["weights", pytest.param("torch", marks=pytest.mark.torch)])
def test_both_sides_of_a_function_give_the_sum_of_the_file(name: str, job: Job) -> None:
    if name == "torch":
        pytest.importorskip("torch")
    wanted = weights.total(weights.load(job.file).values())
    made = function(name)
    how, shared = made.shared(job)
    assert how == "direct"
    assert made.native(job)() == shared() == wanted


def test_npz_files_are_read_too(tmp_path: Path) -> None:
    arrays = {"x": np.arange(9.0), "y": np.arange(3, dtype=np.int16)}
    np.savez(tmp_path / "m.npz", **arrays)
    assert weights.total(weights.load(str(tmp_path / "m.npz")).values()) == weights.total(arrays.values())


def test_inference_gives_the_same_bits_each_time(models: model_files.ModelFiles) -> None:
    pytest.importorskip("onnxruntime")
    path = str(models.onnx)
    ort = function("onnxruntime")
    assert path.endswith(READS["onnxruntime"])
    assert ort.native(Job("m", path))() == ort.native(Job("m", path))()


def test_an_unknown_function_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown function 'dance'"):
        function("dance")


def test_a_dropped_file_is_cold_and_a_read_one_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(np.random.default_rng(0).bytes(300_001))
    coldness.heat([[str(path)]])
    assert pagecache.resident(str(path)) == (300_001, 300_001)
    assert coldness.cached([str(path)]) == 1.0
    pages.need_dropping(tmp_path)
    assert coldness.chill([str(path)]) == 0.0 == coldness.cached([str(path)])
    for look in (True, False):  # both ways of asking the kernel
        if not look:
            monkeypatch.setattr(pagecache, "_CACHESTAT", 999_999)
        assert pagecache.resident(str(path)) == (0, 300_001)
    with open(path, "rb") as file:
        file.seek(200_000)
        file.read(1)
    assert 0 < coldness.cached([str(path)]) <= 1.0


def test_looks_are_proof_only_when_all_agree() -> None:
    assert coldness.found("cold", []) is None
    for cache, shares, proven in (
        ("cold", [0.0, 0.005], True), ("cold", [0.0, 0.02], False),
        ("warm", [1.0, 0.995], True), ("warm", [1.0, 0.9], False),
    ):  # fmt: skip
        found = coldness.found(cache, shares)
        assert found is not None and found.proven is proven and found.looks == 2
        assert (found.least, found.most) == (min(shares), max(shares))
