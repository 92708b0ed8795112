"""A program that loads torch and safetensors files in every way, redirected, and compares with the libraries' own.

`python torch_loads.py DIRECTORY`: prints how many loads it compared; at a difference, ends with an AssertionError. The
originals are still there: `torch.load.__wrapped__`, and the type in safetensors' compiled module.
"""

from __future__ import annotations

import collections
import copy
import io
import itertools
import mmap
import operator
import os
import pathlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch


def make(directory: pathlib.Path) -> None:
    """The files, by the libraries themselves."""
    import safetensors.numpy
    import safetensors.torch

    torch.manual_seed(0)
    weight, grid = torch.randn(64, 48), torch.arange(24.0).reshape(4, 6)
    state = collections.OrderedDict(
        w=weight, tied=weight, ones=torch.ones(300, 100), equal=torch.ones(300, 100), zero=torch.zeros(9),
        nil=torch.zeros(9), half=torch.randn(33).to(torch.bfloat16), tiny=torch.randn(16).to(torch.float8_e4m3fn),
        number=torch.arange(7), flag=torch.tensor([True, False]), empty=torch.zeros(0, 3), scalar=torch.tensor(3.5),
        turned=torch.randn(8, 6).t(), rows=grid[1:3], columns=grid[:, 2:5],
        parameter=torch.nn.Parameter(torch.randn(5, 5)), complex=torch.randn(3, dtype=torch.complex64),
    )  # fmt: skip
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    torch.save(state, directory / "state.pt")
    whole = {"model": state, "optimizer": {"state": {0: {"m": torch.randn(64, 48)}}}, "epoch": 3, "name": "x"}
    torch.save(whole, directory / "training.pt")
    torch.save({"w": weight}, directory / "legacy.pt", _use_new_zipfile_serialization=False)
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in state.items()}
    safetensors.torch.save_file(plain, directory / "state.safetensors", metadata={"format": "pt", "by": "test"})
    torch.save({"w": torch.ones(500), "is": "old"}, directory / "old.pt")
    safetensors.torch.save_file({"w": torch.ones(500)}, directory / "old.safetensors", metadata={"is": "old"})
    arrays = {"x": np.arange(50000.0), "y": np.ones((3, 4), np.float16), "z": np.zeros((0, 2), np.int8)}
    safetensors.numpy.save_file({**arrays, "again": arrays["x"]}, directory / "arrays.safetensors")


class Odd:
    """An object of the program's own in a checkpoint."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


def outcome(action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What calling gives, or the error that it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return action(*arguments, **options)
        except Exception as error:
            return error


def traits(tensor: torch.Tensor) -> tuple[Any, ...]:
    values = tensor.detach().contiguous().reshape(-1)
    data = values.view(torch.uint8).numpy().tobytes() if values.numel() and not tensor.is_meta else b""
    return (
        type(tensor), tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.requires_grad,
        tensor.is_leaf, tensor.device, tensor.untyped_storage().nbytes(), data,
    )  # fmt: skip


def check(ours: Any, native: Any, where: object) -> None:
    """Raise AssertionError when two outcomes differ in anything that a program can see."""
    assert type(ours) is type(native), (where, ours, native)
    if isinstance(native, torch.Tensor):
        assert traits(ours) == traits(native), (where, ours, native)
    elif isinstance(native, np.ndarray):
        for name in ("dtype", "shape", "strides"):
            assert getattr(ours, name) == getattr(native, name), (where, name)
        assert ours.tobytes() == native.tobytes() and ours.flags.writeable == native.flags.writeable, where
    elif isinstance(native, dict):
        assert list(ours) == list(native), where
        for name in native:
            check(ours[name], native[name], (where, name))
        assert aliases(ours) == aliases(native), where
        assert getattr(ours, "_metadata", None) == getattr(native, "_metadata", None), where
    elif isinstance(native, Exception):
        assert str(ours) == str(native), where
    else:
        assert ours == native, (where, ours, native)


def aliases(values: dict[Any, Any]) -> list[list[Any]]:
    """The names whose tensors share a storage."""
    groups: dict[int, list[Any]] = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.numel() and not value.is_meta:
            groups.setdefault(value.untyped_storage().data_ptr(), []).append(name)
    return sorted(groups.values())


OPTIONS: list[dict[str, Any]] = [
    {}, {"mmap": True}, {"mmap": False}, {"weights_only": True}, {"weights_only": False}, {"map_location": "cpu"},
    {"map_location": torch.device("cpu")}, {"map_location": {"cpu": "cpu"}}, {"map_location": lambda s, _: s},
    {"map_location": lambda s, _: None, "mmap": True}, {"map_location": "meta"},
    {"map_location": "no such device"}, {"weights_only": False, "encoding": "latin1"}, {"pickle_module": pickle},
    {"pickle_module": pickle, "weights_only": False}, {"nonsense": 1},
]  # fmt: skip


def load_checkpoints(directory: pathlib.Path) -> Iterator[None]:
    native = torch.load.__wrapped__
    for name, options in itertools.product(("state.pt", "training.pt", "legacy.pt", "none.pt"), OPTIONS):
        path = str(directory / name)
        check(outcome(torch.load, path, **options), outcome(native, path, **options), (name, options))
        yield
    path = str(directory / "state.pt")
    wanted = native(path)
    with open(path, "rb") as file:
        for source in (pathlib.Path(path), file, io.BytesIO(pathlib.Path(path).read_bytes()), Link(directory)):
            check(torch.load(source), wanted, source)
            yield
    for position, options in itertools.product((0, 1), ({}, {"mmap": True}, {"weights_only": False})):
        with open(path, "rb") as file, open(path, "rb") as other:
            assert file.read(position) == other.read(position)
            found = outcome(torch.load, file, **options)
            check(found, outcome(native, other, **options), ("open", position, options))
            assert isinstance(found, Exception) or is_shared(found["w"])
            yield
    (directory / "legacy.pt").rename(directory / "moved.pt")
    with open(directory / "moved.pt", "rb") as file:
        (directory / "moved.pt").rename(directory / "legacy.pt")
        check(torch.load(file), native(str(directory / "legacy.pt")), "no longer there")
        yield
    with open(directory / "legacy.pt", "rb") as file:  # known, and left to torch
        check(torch.load(file), native(str(directory / "legacy.pt")), "of another format")
        yield
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: torch.load(path), range(24)):
            check(found, wanted, "threads")
            yield
    written = torch.load(path)
    assert is_shared(written["w"]) and is_shared(written["tiny"])
    written["w"].zero_()
    assert not bool(written["tied"].any())
    written["zero"].fill_(1)
    assert not bool(written["nil"].any()) and bool((written["equal"] == 1).all())
    check(torch.load(path), wanted, "after a write")
    check(native(saved(written)), written, "saved again")
    check(copy.deepcopy(written["w"]), written["w"], "copied")
    assert written["half"].share_memory_().is_shared()
    yield
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        torch.load(path, mmap=True)["scalar"].fill_(4)
    assert torch.load(path)["scalar"] == 4, "a write that was to go to the file"
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        torch.load(path, mmap=True)["scalar"].fill_(3.5)
    yield


class Link(os.PathLike[str]):
    """A path, of a kind of its own, through a symbolic link."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.path = directory / "link.pt"
        self.path.symlink_to("state.pt")

    def __fspath__(self) -> str:
        return str(self.path)


class Fickle(os.PathLike[str]):
    """A path whose file becomes another one when it is asked for the nth time."""

    def __init__(self, path: pathlib.Path, new: pathlib.Path, nth: int) -> None:
        self.path, self.new, self.left = path, new, nth

    def __fspath__(self) -> str:
        self.left -= 1
        if self.left == 0:
            os.replace(self.new, self.path)
        return str(self.path)


def saved(state: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def is_shared(tensor: torch.Tensor) -> bool:
    """Whether the values lie on a map of the store's file, or of a manager's memory."""
    with open("/proc/self/maps") as lines:
        for line in lines:
            start, _, end = line.split(" ", 1)[0].partition("-")
            if int(start, 16) <= tensor.data_ptr() < int(end, 16):
                return ".h5" in line or "memfd:" in line
    return False


INDICES: list[Any] = [
    0, slice(0, 2), slice(None, None, 2), ..., (slice(None), 1), (..., 0), None, -1, torch.tensor([0]), True,
    (0, 0, 0), 700, np.int64(1), slice(5, 9), "x", 1.5, slice(None), (),
]  # fmt: skip


def open_safetensors(directory: pathlib.Path) -> Iterator[None]:
    import safetensors._safetensors_rust as rust
    from safetensors import safe_open

    for name, framework in (("state.safetensors", "pt"), ("arrays.safetensors", "np"), ("state.safetensors", "np")):
        path = str(directory / name)
        ours, native = safe_open(path, framework), rust.safe_open(path, framework)
        assert type(ours) is safe_open and isinstance(native, safe_open) and not isinstance(path, safe_open)
        assert (ours.keys(), ours.offset_keys()) == (native.keys(), native.offset_keys())
        assert ours.metadata() == native.metadata()
        for key in [*native.keys(), "none", 3]:
            check(outcome(ours.get_tensor, key), outcome(native.get_tensor, key), (name, key))
            pieces = outcome(ours.get_slice, key), outcome(native.get_slice, key)
            if isinstance(pieces[1], Exception):
                check(*pieces, (name, key))
                continue
            assert [piece.get_shape() for piece in pieces[:1]] == [pieces[1].get_shape()]
            assert pieces[0].get_dtype() == pieces[1].get_dtype()
            for index in INDICES:
                results = [outcome(operator.getitem, piece, index) for piece in pieces]
                check(*results, (name, framework, key, index))
                yield
        for act in (pickle.dumps, copy.copy, lambda file: file.nonsense):
            check(outcome(act, ours), outcome(act, native), act)
        with ours as entered:
            assert entered is ours
        native.__exit__(None, None, None)
        for act in (lambda file: file.keys(), lambda file: file.get_tensor("w"), lambda file: file.get_slice("w")):
            check(outcome(act, ours), outcome(act, native), (name, "closed"))
    path = str(directory / "state.safetensors")
    assert type(safe_open(path, "jax")) is rust.safe_open
    for arguments in (("none", "pt"), (path, "nonsense"), (path, "pt", "nonsense"), (path,), (path, "np", "cuda:0")):
        check(outcome(safe_open, *arguments), outcome(rust.safe_open, *arguments), arguments)
    check(outcome(type, "S", (safe_open,), {}), outcome(type, "S", (rust.safe_open,), {}), "subclass")
    yield from load_files(directory, rust)


def under_modes(directory: pathlib.Path) -> Iterator[None]:
    """Loads where torch is told to do something else with what is made."""
    import safetensors._safetensors_rust as rust
    from safetensors import safe_open
    from torch._subclasses.fake_tensor import FakeTensorMode

    path, other = str(directory / "state.pt"), str(directory / "state.safetensors")
    for mode in (lambda: torch.device("meta"), torch.inference_mode, torch.no_grad, torch.serialization.skip_data):
        with mode():
            for options in ({}, {"mmap": True}):
                found = torch.load(path, **options), torch.load.__wrapped__(path, **options)
                assert [[t.device, t.is_inference()] for t in found[0].values()] == [
                    [t.device, t.is_inference()] for t in found[1].values()
                ]
            for act in (lambda file: file.get_tensor("half"), lambda file: file.get_slice("w")[1]):
                ours, native = act(safe_open(other, "pt")), act(rust.safe_open(other, "pt"))
                assert (ours.device, ours.is_inference()) == (native.device, native.is_inference())
                yield
    with FakeTensorMode():
        assert type(torch.load(path)["w"]) is type(torch.load.__wrapped__(path)["w"]) is not torch.Tensor
        check(outcome(safe_open(other, "pt").get_tensor, "w"), outcome(rust.safe_open(other, "pt").get_tensor, "w"), 0)
    yield


def load_files(directory: pathlib.Path, rust: Any) -> Iterator[None]:
    import safetensors.numpy
    import safetensors.torch

    path, arrays = directory / "state.safetensors", directory / "arrays.safetensors"
    wanted = rust.safe_open(path, "pt").get_tensors()
    found = safetensors.torch.load_file(path)
    check(found, wanted, "load_file")
    check(torch.load(str(path)), wanted, "torch.load of safetensors")
    assert all(is_shared(found[name]) for name in ("tied", "half", "tiny", "ones", "equal"))
    found["w"].zero_()
    found["ones"].zero_()
    assert bool((found["equal"] == 1).all())
    check(safetensors.torch.load_file(path), wanted, "after a write")
    check(safetensors.numpy.load_file(arrays), rust.safe_open(arrays, "np").get_tensors(), "NumPy")
    file = safetensors.safe_open(arrays, "np")
    one, other = file.get_tensor("x"), file.get_tensor("x")
    one[:] = 0
    assert other[3] == 3 and file.get_tensor("again")[3] == 3 and file.get_tensor("x")[3] == 3
    yield


def neighbours(directory: pathlib.Path) -> Iterator[None]:
    """A write in one process, and what another one has of the same memory."""
    import safetensors.torch

    path, other = str(directory / "state.pt"), directory / "state.safetensors"
    mine = torch.load(path), safetensors.torch.load_file(other)
    expected = [traits(state["w"]) for state in mine]
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            for state in (*mine, torch.load(path), safetensors.torch.load_file(other)):
                state["w"].fill_(42)
                state["half"].fill_(42)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert [traits(state["w"]) for state in mine] == expected
    assert traits(torch.load(path)["w"]) == expected[0]
    yield


def objects(directory: pathlib.Path) -> Iterator[None]:
    """What is no tensor, and errors that are the program's own."""
    path = str(directory / "odd.pt")
    native = torch.load.__wrapped__
    torch.save({"odd": Odd(torch.ones(2)), "w": torch.ones(500)}, path)
    check(outcome(torch.load, path), outcome(native, path), "refused")
    found = torch.load(path, weights_only=False)
    assert type(found["odd"]) is Odd and bool((found["odd"].tensor == 1).all())
    calls: list[str] = []

    def fails(storage: Any, location: str) -> Any:
        calls.append(location)
        raise LookupError("the program's own")

    error = outcome(torch.load, str(directory / "state.pt"), map_location=fails)
    assert type(error) is LookupError and calls == ["cpu"]
    yield


def replacements(directory: pathlib.Path) -> Iterator[None]:
    """A file that is replaced while it is loaded: what is loaded is the one, or the other."""
    import safetensors
    import safetensors.torch

    new = {"w": torch.zeros(500), "is": "new"}
    path, other = directory / "old.pt", directory / "new.pt"
    before = path.read_bytes()
    for nth in range(1, 10):
        torch.save(new, other)
        found = torch.load(Fickle(path, other, nth))
        assert found["is"] == ("old" if bool(found["w"].any()) else "new"), nth
        path.write_bytes(before)
        yield
    path, other = directory / "old.safetensors", directory / "new.safetensors"
    before = path.read_bytes()
    for nth in range(1, 10):
        safetensors.torch.save_file({"w": new["w"]}, other, metadata={"is": "new"})
        file = safetensors.safe_open(Fickle(path, other, nth), "pt")
        assert file.metadata()["is"] == ("old" if bool(file.get_tensor("w").any()) else "new"), nth
        path.write_bytes(before)
        yield


PARTS = (load_checkpoints, open_safetensors, under_modes, neighbours, objects, replacements)

if __name__ == "__main__":
    where = pathlib.Path(sys.argv[1])
    assert hasattr(torch.load, "__wrapped__"), "nothing is redirected"
    print(sum(1 for part in PARTS for _ in part(where)))
