"""trims.safetensors: models by the interface of the library, compared with the library on the same file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
library = pytest.importorskip("safetensors")

import safetensors.torch  # noqa: E402
from helpers import torch_loads  # noqa: E402

import trims  # noqa: E402
from trims.client import connections  # noqa: E402
from trims.disk.importers import open_source  # noqa: E402
from trims.disk.ingest import import_model  # noqa: E402
from trims.disk.store import create_store  # noqa: E402
from trims.errors import NoSuchModel  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture
def path(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file whose tensors are in the store as `m`."""
    monkeypatch.setenv("TRIMS_STORE", str(home / "store"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "none.sock"))
    tensors = {
        "b": torch.arange(12.0).reshape(3, 4), "a": torch.ones(2, dtype=torch.bfloat16), "none": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5), "tiny": torch.ones(4).to(torch.float8_e4m3fn), "flag": torch.tensor([True]),
        "equal": torch.arange(12.0).reshape(3, 4),
    }  # fmt: skip
    path = home / "m.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "by": "test"})
    with open_source(path) as source:
        import_model(create_store(str(home / "store")), source, "m")
    yield path
    connections.close_idle()


def test_a_model_is_read_as_its_file_is(path: Path) -> None:
    with trims.safetensors.safe_open("m", "pt") as ours, library.safe_open(path, "pt") as native:
        assert ours.keys() == native.keys() and sorted(ours.offset_keys()) == native.keys()
        assert ours.metadata() == native.metadata() == {"format": "pt", "by": "test"}
        for name in native.keys():  # noqa: SIM118  not a dictionary
            torch_loads.check(ours.get_tensor(name), native.get_tensor(name), name)
            piece, wanted = ours.get_slice(name), native.get_slice(name)
            assert (piece.get_shape(), piece.get_dtype()) == (wanted.get_shape(), wanted.get_dtype())
            torch_loads.check(piece[...], wanted[...], name)
        torch_loads.check(ours.get_slice("b")[:, ::2], native.get_slice("b")[:, ::2], "slice")
    torch_loads.check(
        dict(sorted(trims.safetensors.load_file("m").items())),
        dict(sorted(safetensors.torch.load_file(path).items())),
        "load_file",
    )


def test_errors_are_those_of_the_library(path: Path) -> None:
    file = trims.safetensors.safe_open("m", "pt")
    error = library.SafetensorError
    for get in (file.get_tensor, file.get_slice):
        with pytest.raises(error, match="File does not contain tensor nothing"):
            get("nothing")
    file.__exit__(None, None, None)
    for act in (file.keys, file.offset_keys, file.metadata, lambda: file.get_tensor("b"), file.__enter__):
        with pytest.raises(error, match="File is closed"):
            act()
    with pytest.raises(error, match="framework paint is invalid"):
        trims.safetensors.safe_open("m", "paint")
    with pytest.raises(error, match="Device cuda:0 is not supported for framework numpy"):
        trims.safetensors.safe_open("m", "np", "cuda:0")
    with pytest.raises(NoSuchModel):
        trims.safetensors.safe_open("nothing", "pt")


def test_writes_stay_with_the_one_who_opened(path: Path) -> None:
    with trims.open("m") as model:
        one, other = (trims.safetensors.safe_open(model, framework) for framework in ("np", "pt"))
        array: Any = one.get_tensor("b")
        array[:] = 7
        assert (one.get_slice("b")[1] == 7).all() and one.get_tensor("equal")[0, 3] == 3
        assert other.get_tensor("b")[0, 3] == 3 and model["b"][0, 3] == 3
        assert isinstance(array, np.ndarray) and list(one.get_tensors()) == one.offset_keys()
        one.__exit__(None, None, None)
        assert not model.closed and (array == 7).all()


def test_the_frameworks_are_named_in_trims() -> None:
    from trims.integrations import numpy as own_numpy
    from trims.integrations import torch as own_torch

    assert trims.torch is own_torch and trims.numpy is own_numpy
    with pytest.raises(AttributeError, match="has no attribute 'tensorflow'"):
        _ = trims.tensorflow
