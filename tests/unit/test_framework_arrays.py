"""NumPy, DLPack, JAX and CuPy over shared weights: the same bits, no copy, memory that lives as long as its arrays."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import capabilities, sources

import trims
from trims.client import connections
from trims.disk.ingest import import_model
from trims.disk.store import Store, create_store
from trims.errors import DeviceLost, UsageError
from trims.integrations import dlpack
from trims.manifest import ITEM_SIZES, STORAGE

needs_jax = pytest.mark.skipif(not capabilities.has_module("jax"), reason="JAX is not installed")
HAS_CUPY = capabilities.has_module("cupy")


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    made = create_store(str(home / "store"))
    import_model(made, every_dtype(), "m")
    yield made
    connections.close_idle()


def every_dtype() -> sources.CodeSource:
    """A tensor of every dtype, named for it, and a scalar, an empty one, and two equal ones of an odd shape."""
    rng = np.random.default_rng(0)
    tensors = []
    for name, size in ITEM_SIZES.items():
        raw = rng.integers(0, 2 if name == "bool" else 60, 6 * size, dtype=np.uint8)
        made = sources.tensor(name, raw.view(STORAGE.get(name, name)).reshape(2, 3), name)
        tensors.append(made)
    weight = sources.numbers(1, 7, 11, 3)
    tensors += [sources.tensor("odd", weight), sources.tensor("equal", weight)]
    tensors += [sources.tensor("scalar", np.array(2.5, np.float32))]
    tensors += [sources.tensor("empty", np.zeros((0, 3), np.int8))]
    return sources.CodeSource(tensors)


# ---- NumPy


def test_arrays_are_the_models_views(store: Store) -> None:
    with trims.open("m") as model:
        arrays = model.numpy()
        assert list(arrays) == list(model)
        for name, array in arrays.items():
            assert array.dtype == model[name].dtype and array.tobytes() == model[name].tobytes()
            assert not array.flags.writeable
            assert not array.size or np.shares_memory(array, model[name])


def test_writable_arrays_are_of_their_own(store: Store) -> None:
    with trims.open("m") as model:
        before = model["odd"].copy()
        one, two = model.numpy(writable=True), model.numpy(writable=True)
        assert all(array.flags.writeable and array.tobytes() == model[name].tobytes() for name, array in one.items())
        one["odd"][:] = 1
        assert (one["equal"] == before).all()
        assert (two["odd"] == before).all() and (model["odd"] == before).all()
        assert model.memory().written > 0
        assert model.memory().copied == 2 * before.nbytes  # the smaller way to have equal ones apart


# ---- DLPack


def test_every_dtype_numpy_can_export_comes_back(store: Store) -> None:
    with trims.open("m") as model:
        for name, shared in dlpack.tensors(model).items():
            assert (shared.shape, shared.dtype) == (model[name].shape, model[name].dtype)
            assert shared.__dlpack_device__() == (1, 0)
            if model[name].dtype.name not in STORAGE:
                array = np.from_dlpack(shared)
                assert array.dtype == model[name].dtype and array.tobytes() == model[name].tobytes(), name


@capabilities.needs_onnxruntime
def test_opaque_dtypes_keep_their_type_and_memory(store: Store) -> None:
    import onnxruntime as ort

    types = {"bfloat16": "bfloat16", "float8_e4m3fn": "float8e4m3fn", "float8_e5m2fnuz": "float8e5m2fnuz"}
    with trims.open("m") as model:
        tensors = dlpack.tensors(model)
        for name, said in types.items():
            value = ort.OrtValue.from_dlpack(tensors[name].__dlpack__(max_version=(1, 0), copy=False))
            assert value.data_type() == f"tensor({said})"
            assert value.data_ptr() == tensors[name]._array.__array_interface__["data"][0]


@pytest.mark.torch
@capabilities.needs_torch
def test_torch_takes_opaque_dtypes_by_dlpack(store: Store) -> None:
    import torch

    with trims.open("m") as model:
        tensors = dlpack.tensors(model)
        for name in STORAGE:
            tensor = torch.from_dlpack(tensors[name])
            assert tensor.dtype == getattr(torch, name)
            assert tensor.view(torch.uint8).numpy().tobytes() == model[name].tobytes()


def test_a_consumer_keeps_the_memory_and_an_unused_capsule_does_not(store: Store) -> None:
    with trims.open("m") as model:
        tensors = dlpack.tensors(model)
        array = np.from_dlpack(tensors["odd"])
        expected = model["odd"].tobytes()
        tensors["bfloat16"].__dlpack__()
    del tensors
    gc.collect()
    assert model.in_use and array.tobytes() == expected
    del array
    gc.collect()
    assert not model.in_use


def test_a_copy_asked_for_is_one(store: Store) -> None:
    with trims.open("m") as model:
        shared = dlpack.tensors(model)["odd"]
        copy = np.from_dlpack(shared, copy=True) if np.lib.NumpyVersion(np.__version__) >= "2.1.0" else None
        assert copy is None or not np.shares_memory(copy, shared._array)
        for wrong in ({"stream": 1}, {"dl_device": (2, 0)}):
            with pytest.raises(BufferError, match="host memory"):
                shared.__dlpack__(**wrong)


# ---- JAX

_JAX = """
import gc, json, sys
import numpy as np, jax, trims
model = trims.open("m")
arrays = model.jax()
ok = {}
for name, array in arrays.items():
    same = np.asarray(array).tobytes() == model[name].tobytes() and array.shape == model[name].shape
    ok[name] = [str(array.dtype), same]
memory = model.memory()
arrays = None
jax.config.update("jax_enable_x64", True)
wide = model.jax()
wide_same = all(np.asarray(a).tobytes() == model[n].tobytes() for n, a in wide.items())
wide_copied = model.memory().copied
odd = wide["odd"]
model.close()
wide = a = array = None
gc.collect()
kept = model.in_use and float(odd.sum())
odd = None
gc.collect()
print(json.dumps({"names": list(ok), "ok": ok, "copied": memory.copied, "wide_same": wide_same,
                  "wide_copied": wide_copied, "kept": bool(kept), "in_use": model.in_use}))
"""


@needs_jax
def test_jax_shares_all_but_what_it_has_no_type_for(store: Store) -> None:
    done = subprocess.run([sys.executable, "-c", _JAX], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    narrow = {"int64": "int32", "uint64": "uint32", "float64": "float32", "complex128": "complex64"}
    with trims.open("m") as model:
        assert said["names"] == list(model)
        for name, (dtype, same) in said["ok"].items():
            assert (dtype, same) == (narrow.get(name, model[name].dtype.name), name not in narrow)
        assert said["copied"] == sum(model[name].nbytes // 2 for name in narrow)
    assert said["wide_same"] and said["wide_copied"] == 0
    assert said["kept"] and not said["in_use"]


# ---- what is not installed


@pytest.mark.skipif(HAS_CUPY, reason="CuPy is installed")
def test_a_framework_that_is_missing_is_named(store: Store) -> None:
    with (
        trims.open("m") as model,
        pytest.raises(UsageError, match=r"^cupy is not installed \(pip install cupy-cuda12x\)"),
    ):
        model.cupy()


@pytest.mark.skipif(not HAS_CUPY or capabilities.has_gpu(), reason="CuPy is not installed, or has a GPU")
def test_a_gpu_that_is_missing_is_an_error_in_one_line(store: Store) -> None:
    with trims.open("m") as model, pytest.raises(DeviceLost, match=r"^m:latest cannot be copied to a GPU: [^\n]*$"):
        model.cupy()


def test_frameworks_are_imported_only_when_asked_for(store: Store) -> None:
    code = (
        "import sys, trims\nmodel = trims.open('m'); model.numpy(); model.memory()\n"
        "assert not {'torch', 'jax', 'onnxruntime', 'cupy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


@pytest.mark.gpu
@capabilities.needs_gpu
@pytest.mark.skipif(not HAS_CUPY, reason="CuPy is not installed")
def test_cupy_has_the_same_bits_on_the_gpu(store: Store) -> None:
    import_model(store, sources.source({"w": sources.numbers(0, 7, 9), "i": np.arange(5)}), "plain")
    with trims.open("plain") as model:
        for name, array in model.cupy().items():
            assert array.get().tobytes() == model[name].tobytes()


def test_ml_dtypes_are_what_the_arrays_have(store: Store) -> None:
    with trims.open("m") as model:
        assert model.numpy()["bfloat16"].dtype == np.dtype(ml_dtypes.bfloat16)
