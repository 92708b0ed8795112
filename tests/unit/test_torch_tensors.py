"""Torch over shared weights: no copy, no warning, private writes, memory that lives as long as its tensors."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from helpers import sources

torch = pytest.importorskip("torch")

import trims  # noqa: E402
from trims.client import connections  # noqa: E402
from trims.disk.ingest import import_model  # noqa: E402
from trims.disk.store import Store, create_store  # noqa: E402
from trims.errors import UsageError  # noqa: E402
from trims.integrations.torch import load_into  # noqa: E402
from trims.manifest import ITEM_SIZES  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def store(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    made = create_store(str(home / "store"))
    import_model(made, sources.sample(), "m")
    yield made
    connections.close_idle()


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def test_every_dtype_has_the_same_bits_without_a_copy_or_a_warning(store: Store) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for name, size in ITEM_SIZES.items():
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        arrays[name] = rng.integers(0, 2 if name == "bool" else 60, 6 * size, dtype=np.uint8).view(dtype).reshape(2, 3)
    tensors = [sources.tensor(n, a.view(np.uint8) if n not in np.sctypeDict else a) for n, a in arrays.items()]
    for made, (name, array) in zip(tensors, arrays.items(), strict=True):
        made.dtype, made.shape = name, array.shape
    tensors += [sources.tensor("scalar", np.array(2.5, np.float32)), sources.tensor("none", np.zeros((0, 3), np.int8))]
    tensors += [sources.tensor("one", sources.bfloat16(np.array([1.5], np.float32)).reshape(()), "bfloat16")]
    tensors += [sources.tensor("nothing", np.zeros((0, 3), np.uint16), "bfloat16")]
    import_model(store, sources.CodeSource(tensors), "all")
    with warnings.catch_warnings(), trims.open("all") as model:
        warnings.simplefilter("error")
        state = model.torch()
        assert list(state) == list(model)
        for name, array in arrays.items():
            assert state[name].dtype == getattr(torch, name)
            assert tuple(state[name].shape) == array.shape
            assert bits(state[name]) == array.tobytes()
        assert state["scalar"].item() == 2.5 and state["scalar"].shape == ()
        assert state["one"].item() == 1.5 and state["one"].shape == ()
        assert state["none"].shape == state["nothing"].shape == (0, 3)
        assert state["nothing"].dtype == torch.bfloat16


def test_tensors_lie_at_their_region_offsets(store: Store) -> None:
    with trims.open("m") as model:
        state, offsets = model.torch(), model.manifest.layout.tensors
        start = state["conv1.weight"].data_ptr() - offsets["conv1.weight"]
        for name, tensor in state.items():
            if tensor.numel() and name != "tied/weight":
                assert tensor.data_ptr() == start + offsets[name], name


def test_what_is_only_equal_is_not_one_memory(store: Store) -> None:
    """The region holds equal tensors once. A write to one of them must not be a write to the other."""
    ones = np.ones((300, 100), np.float32)
    import_model(store, sources.source({"a": ones, "b": ones, "c": ones[:3], "d": ones[:3], "e": ones}), "equal")
    with trims.open("equal") as model:
        offsets = model.manifest.layout.tensors
        assert offsets["a"] == offsets["b"] == offsets["e"] and offsets["c"] == offsets["d"]
        state = model.torch()
        for name in model:
            state[name].zero_()
            rest = [n for n in model if n > name]
            assert all(bool((state[n] == 1).all()) for n in rest), name
        assert all(tensor.data_ptr() % 64 == 0 for tensor in state.values())
        del state
    gc.collect()
    assert not model.in_use


def test_a_write_is_never_seen_by_a_neighbour(store: Store) -> None:
    with trims.open("m") as model:
        expected = model["conv1.weight"].tobytes()
        state = model.torch()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                state["conv1.weight"].fill_(42)
                ok = bool((state["conv1.weight"] == 42).all()) and model["conv1.weight"].tobytes() == expected
                code = 0 if ok else 2
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        assert bits(state["conv1.weight"]) == expected
        state["conv1.weight"].zero_()
        assert model["conv1.weight"].tobytes() == expected
        with trims.open("m") as again:
            assert bits(again.torch()["conv1.weight"]) == expected


def test_a_tensor_outlives_the_model(store: Store) -> None:
    with trims.open("m") as model:
        row = model.torch()["conv1.weight"][3]
        expected = model["conv1.weight"][3].tobytes()
    gc.collect()
    assert model.in_use and bits(row) == expected
    del row
    gc.collect()
    assert not model.in_use


def network() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 2))


@pytest.fixture
def saved(store: Store) -> torch.nn.Module:
    """A network whose state is in the store as `net`."""
    torch.manual_seed(0)
    made = network().eval()
    import_model(store, sources.source({n: t.detach().numpy() for n, t in made.state_dict().items()}), "net")
    return made


def test_a_module_gets_its_parameters_without_a_copy_and_its_buffers_privately(saved: torch.nn.Module) -> None:
    with torch.device("meta"):
        module = network().eval()
    with trims.open("net") as model:
        assert load_into(module, model) is module
        x = torch.ones(3, 8)
        assert torch.equal(module(x), saved(x))
        offsets = model.manifest.layout.tensors
        state = module.state_dict()
        distance = state["2.weight"].data_ptr() - state["0.weight"].data_ptr()
        assert distance == offsets["2.weight"] - offsets["0.weight"]
        assert abs(state["1.running_mean"].data_ptr() - state["0.weight"].data_ptr()) != offsets["1.running_mean"]
        module.train()(x)
        assert module[1].num_batches_tracked == 1 and model["1.num_batches_tracked"] == 0
    del module, state
    gc.collect()
    assert not model.in_use


class Tied(torch.nn.Module):
    """A network that uses one parameter twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Linear(4, 4, bias=False)
        self.outer = torch.nn.Linear(4, 4, bias=False)
        self.outer.weight = self.inner.weight


@pytest.mark.parametrize("names", [["inner.weight", "outer.weight"], ["inner.weight"], ["outer.weight"]])
def test_what_a_module_ties_stays_tied(store: Store, names: list[str]) -> None:
    """Also when the file has one of the names, as safetensors files do."""
    weight = np.arange(16, dtype=np.float32).reshape(4, 4)
    import_model(store, sources.source(dict.fromkeys(names, weight)), "tied")
    with torch.device("meta"):
        module = Tied()
    with trims.open("tied") as model:
        load_into(module, model)
    assert module.inner.weight is module.outer.weight
    assert module.inner.weight.detach().numpy().tobytes() == weight.tobytes()


def test_the_copies_of_buffers_are_counted(saved: torch.nn.Module) -> None:
    with torch.device("meta"):
        module = network()
    with trims.open("net") as model:
        load_into(module, model)
        assert model.memory().copied >= sum(buffer.nbytes for buffer in module.buffers())
        assert model.memory().written == 0
        del module
        gc.collect()
        assert model.memory().copied == 0


def test_a_tensor_is_saved_without_the_rest_of_the_model(store: Store, home: Path) -> None:
    arrays = {"half": sources.bfloat16(np.ones(64, np.float32)), "big": np.ones(1 << 18, np.float32)}
    tensors = [sources.tensor("half", arrays["half"], "bfloat16"), sources.tensor("big", arrays["big"])]
    import_model(store, sources.CodeSource(tensors), "two")
    with trims.open("two") as model:
        torch.save(model.torch()["half"], home / "half.pt")
        assert model.torch()["half"].untyped_storage().nbytes() == 128
    assert (home / "half.pt").stat().st_size < 4096


def test_what_does_not_fit_is_named(saved: torch.nn.Module) -> None:
    with trims.open("net") as model:
        with pytest.raises(UsageError, match="net:latest does not fit the module"):
            load_into(torch.nn.Linear(8, 6), model)
        with torch.device("meta"):
            module = network()
            module.register_buffer("mask", torch.ones(2), persistent=False)
        with pytest.raises(UsageError, match="mask is on the meta device"):
            load_into(module, model)
        gc.collect()


def test_reading_tensors_makes_no_private_memory(store: Store) -> None:
    import_model(store, sources.source({"w": np.ones((1024, 2048), np.float32)}), "big")
    with trims.open("big") as model:
        state = model.torch()
        assert float(state["w"].sum()) == 1024 * 2048
        assert dirty_kilobytes(".h5") < 64
        state["w"][0, 0] = 5
        assert 0 < dirty_kilobytes(".h5") < 64


def dirty_kilobytes(name: str) -> int:
    total, inside = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            head = line.split(" ", 1)[0]
            if not head.endswith(":"):
                inside = name in line
            elif inside and head == "Private_Dirty:":
                total += int(line.split()[1])
    return total
