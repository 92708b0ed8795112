"""PyTorch checkpoints of both forms, read without PyTorch; and pickles that try to be more than that."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from helpers.capabilities import needs_torch
from helpers.importing import contents, load, refused
from helpers.models import ModelFiles

from trims.disk.importers import open_source, pickled
from trims.disk.importers.pt_flatten import flatten
from trims.disk.importers.pt_tensors import Rebuilder
from trims.disk.importers.sniff import LEGACY_TORCH
from trims.errors import BadInput

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def raw(tensor: Any) -> tuple[str, tuple[int, ...], bytes]:
    """What a tensor must be read as."""
    import torch

    whole = tensor.detach().contiguous()
    data = whole.reshape(-1).view(torch.uint8).numpy().tobytes() if whole.numel() else b""
    return str(whole.dtype).removeprefix("torch."), tuple(whole.shape), data


def save(value: Any, path: Path, zipped: bool = True) -> Path:
    import torch

    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.torch
@needs_torch
@FORMS
def test_reads_every_kind_of_tensor(tmp_path: Path, zipped: bool) -> None:
    import torch

    base = torch.randn(6, 8)
    state = {
        "base": base,
        "tied": base,
        "transposed": base.t(),
        "rows": base[2:4],
        "columns": base[:, 1:7:2],
        "expanded": torch.randn(3, 1).expand(3, 5),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "half": torch.randn(4).half(),
        "bf16": torch.randn(4, 4).bfloat16(),
        "fp8": torch.randn(4).to(torch.float8_e4m3fn),
        "fp8_5": torch.randn(4).to(torch.float8_e5m2),
        "u16": torch.arange(4).to(torch.uint16),
        "complex": torch.randn(2, dtype=torch.complex64),
        "i8": torch.arange(-3, 3, dtype=torch.int8),
    }
    path = save(state, tmp_path / "m.pt", zipped)
    assert load(path) == {name: raw(tensor) for name, tensor in state.items()}


@pytest.mark.torch
@needs_torch
@FORMS
def test_a_training_checkpoint_gives_its_weights(tmp_path: Path, zipped: bool) -> None:
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.BatchNorm1d(5))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": {"w": torch.ones(2)},
    }
    path = save(saved, tmp_path / "m.ckpt", zipped)
    expected = {name: raw(tensor) for name, tensor in model.state_dict().items()}
    with open_source(path) as source:
        assert contents(source) == {**expected, "ema.w": raw(torch.ones(2))}
        assert source.origin["skipped"] == {"epoch": 1, "optimizer": 1}


@pytest.mark.torch
@needs_torch
@FORMS
def test_one_tensor_and_lists_of_tensors(tmp_path: Path, zipped: bool) -> None:
    import torch

    assert load(save(torch.ones(2), tmp_path / "a", zipped)) == {"tensor": raw(torch.ones(2))}
    listed = save([torch.ones(2), {"x": torch.zeros(1)}], tmp_path / "b", zipped)
    assert load(listed) == {"0": raw(torch.ones(2)), "1.x": raw(torch.zeros(1))}


@pytest.mark.torch
@needs_torch
def test_stored_tensors_are_views_of_the_file(models: ModelFiles) -> None:
    with open_source(models.torch) as source:
        assert source.format == "torch"
        views = {tensor.name: tensor.read().obj for tensor in source.tensors}
    assert type(views["embed.weight"]).__name__ == "mmap"
    assert type(views["columns"]).__name__ != "mmap"


@pytest.mark.torch
@needs_torch
@FORMS
def test_a_pickled_module_is_refused_by_name(tmp_path: Path, zipped: bool) -> None:
    import torch

    path = save(torch.nn.Linear(2, 2), tmp_path / "m.pt", zipped)
    refused(path, "torch.nn.modules.linear.Linear", "state_dict()")


@pytest.mark.torch
@needs_torch
def test_a_conjugated_tensor_is_refused(tmp_path: Path) -> None:
    import torch

    refused(save({"a": torch.randn(2, dtype=torch.complex64).conj()}, tmp_path / "m.pt"), "resolve_conj")


@pytest.mark.torch
@needs_torch
def test_sparse_and_quantised_tensors_are_refused(tmp_path: Path) -> None:
    import torch

    refused(save({"a": torch.eye(3).to_sparse()}, tmp_path / "m.pt"), "_rebuild_sparse_tensor")


@pytest.mark.torch
@needs_torch
def test_a_script_gives_its_parameters(tmp_path: Path) -> None:
    import torch

    path = tmp_path / "m.jit"
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # newer releases call TorchScript deprecated
        torch.jit.trace(module, torch.randn(1, 3)).save(str(path))
    with open_source(path) as source:
        assert contents(source) == {name: raw(tensor) for name, tensor in module.state_dict().items()}
        assert source.origin["torchscript"] is True


def test_reading_imports_no_torch(tmp_path: Path) -> None:
    """A checkpoint made by hand is read by a process that has not loaded PyTorch."""
    path = tmp_path / "m.pt"
    checkpoint(path, STATE, {"0": bytes(16)})
    code = (
        "import sys; from trims.disk.importers import open_source\n"
        f"source = open_source({str(path)!r}); print([t.name for t in source.tensors], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['w'] False\n"


# Pickles made by hand: what a checkpoint is, and what an attacker would make of one.


def checkpoint(path: Path, data: bytes, storages: dict[str, bytes], **options: bytes) -> Path:
    """A zip checkpoint around any pickle at all."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", data)
        for name, member in options.items():
            archive.writestr(f"m/{name}", member)
        for key, storage in storages.items():
            archive.writestr(f"m/data/{key}", storage)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"\x8a" + bytes([9]) + value.to_bytes(9, "little", signed=True)


def storage(kind: str = "torch\nFloatStorage", key: str = "0", items: int = 4) -> bytes:
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(items) + b"tQ"


def tensor(shape: tuple[int, ...] = (2, 2), strides: tuple[int, ...] = (2, 1), offset: int = 0, **of: Any) -> bytes:
    sizes = [b"(" + b"".join(map(number, part)) + b"t" for part in (shape, strides)]
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    return rebuild + b"(" + storage(**of) + number(offset) + b"".join(sizes) + b"\x89NtR"


def state(name: str, value: bytes) -> bytes:
    return b"\x80\x02}" + text(name) + value + b"s."


STATE = state("w", tensor())


def test_a_checkpoint_made_by_hand_is_read(tmp_path: Path) -> None:
    data = struct.pack("<4f", 1, 2, 3, 4)
    assert load(checkpoint(tmp_path / "m", STATE, {"0": data})) == {"w": ("float32", (2, 2), data)}
    big = checkpoint(tmp_path / "b", STATE, {"0": struct.pack(">4f", 1, 2, 3, 4)}, byteorder=b"big")
    assert load(big) == {"w": ("float32", (2, 2), data)}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (tensor(offset=1), "ends at byte 20 of a storage of 16"),
        (tensor(shape=(3, 2)), "ends at byte 24 of a storage of 16"),
        (tensor(strides=(4, 1)), "ends at byte 24 of a storage of 16"),
        (tensor(offset=-1), "negative"),
        (tensor(strides=(-2, 1)), "negative"),
        (tensor(shape=(-2, 2)), "negative"),
        (tensor(strides=(1,)), "missing size"),
        (tensor(shape=(1 << 40, 1 << 20), strides=(0, 0)), "claims"),
        (tensor(shape=(1 << 59, 2)), "ends at byte"),
        (tensor(shape=(1,) * 33, strides=(1,) * 33), "over 32 dimensions"),
        (tensor(items=5), "has 16 bytes, 20 are needed"),
        (tensor(key="1"), "has no bytes"),
        (tensor(key="../data.pkl"), "has no bytes"),
        (tensor(items=-1), "no size"),
        (tensor(kind="torch\nQInt8Storage"), "torch.QInt8Storage"),
        (tensor(kind="torch\nstrided"), "has the type"),
    ],
)
def test_tensors_outside_their_storage_are_refused(tmp_path: Path, value: bytes, words: str) -> None:
    refused(checkpoint(tmp_path / "m", state("w", value), {"0": bytes(16)}), words)


class Evil:
    """What it is unpickled by creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("protocol", range(6))
def test_code_in_a_pickle_never_runs(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "ran"
    data = pickle.dumps({"w": Evil(mark)}, protocol)
    refused(checkpoint(tmp_path / "m", data, {}), "posix.mkdir")
    (tmp_path / "legacy").write_bytes(LEGACY_TORCH + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + data)
    refused(tmp_path / "legacy", "posix.mkdir")
    (tmp_path / "bare").write_bytes(data)
    refused(tmp_path / "bare", "can run any code" if protocol >= 2 else "no known format")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", "builtins.eval"),
        (b"c__builtin__\ngetattr\n.", "__builtin__.getattr"),
        (b"ctorch\nload\n.", "torch.load"),
        (b"ctorch.storage\n_load_from_bytes\n.", "torch.storage._load_from_bytes"),
        (b"ccollections\nnamedtuple\n.", "collections.namedtuple"),
        (b"c__torch__.M\nM\n.", "__torch__.M.M"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"(i__main__\nEvil\n.", "uses INST"),
        (b"(cbuiltins\nint\no.", "uses OBJ"),
        (b"\x82\x01.", "uses EXT1"),
        (b"}}b.", ""),
        (b"cbuiltins\nint\n)}\x92.", "uses NEWOBJ_EX"),
        (b"X\x01\x00\x00\x00a)R.", "no known name"),
        (b"P1\n.", "uses PERSID"),
        (b"N\x97.", "uses NEXT_BUFFER"),
    ],
)
def test_pickles_that_name_or_call_other_things_are_refused(tmp_path: Path, data: bytes, words: str) -> None:
    refused(checkpoint(tmp_path / "m", data, {}), words)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"0.",
        b"t.",
        b"(((",
        b"Ns.",
        b"h\x05.",
        b"N(1",
        b"\x93.",
        b"r\xff\xff\xff\xff.",
        b"Nr\xff\xff\xff\x7f.",
        b"\x8b\xff\xff\xff\x7f.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"X\xff\xff\xff\xff.",
        b"ctorch",
        b"S'\\q'\n.",
        b"}" + b"(" * 5 + b"u.",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NNNNNNtR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(NNNNtR.",
        b"ccollections\nOrderedDict\n(K\x01tR.",
        b"\xff\xff\xff.",
    ],
)
def test_malformed_pickles_are_refused(tmp_path: Path, data: bytes) -> None:
    refused(checkpoint(tmp_path / "m", data, {}))


def run(data: bytes) -> Any:
    rebuilder = Rebuilder(lambda persistent: pytest.fail("no storage is here"))
    return pickled.load(pickled.Window(memoryview(data)), rebuilder.allowed, rebuilder.call)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_values_come_out_as_they_went_in(protocol: int) -> None:
    value = {"a": [1, -2.5, None, True, "text", (1, 2, 3, 4), [], {}, ()], 7: {"deep": [(1,), (1, 2)]}, "n": 1 << 80}
    assert run(pickle.dumps(value, protocol)) == value


def test_nested_tuples_are_never_hashed() -> None:
    """Sixty tuples of two take two to the sixtieth steps to hash."""
    nest = b"N" + b"q\x00h\x00\x86" * 60
    with pytest.raises(BadInput, match="as a key"):
        run(b"}" + nest + b"Ns.")
    with pytest.raises(BadInput, match="as a key"):
        run(b"\x8f(" + nest + b"\x90.")


def test_few_bytes_cannot_spell_very_many_paths() -> None:
    """A list that holds itself twice, thirty times over, has a thousand million leaves."""
    shared: list[Any] = []
    for _ in range(30):
        shared = [shared, shared]
    with pytest.raises(BadInput, match="nested too deep"):
        flatten(shared)


def test_a_value_in_itself_is_refused(tmp_path: Path) -> None:
    value: dict[str, Any] = {}
    value["self"] = value
    refused(checkpoint(tmp_path / "m", pickle.dumps(value, 2), {}), "nested too deep")


def test_copies_that_a_pickle_asks_for_are_bounded() -> None:
    pairs = b"](" + b"K\x01K\x02\x86" * 20_000 + b"e" + b"q\x00"
    again = b"0ccollections\nOrderedDict\n(h\x00tR" * 60
    with pytest.raises(BadInput, match="copies over"):
        run(pairs + again + b".")


def test_a_checkpoint_with_two_pickles_or_a_compressed_storage_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "two", "w") as archive:
        archive.writestr("a/data.pkl", STATE)
        archive.writestr("b/data.pkl", STATE)
    refused(tmp_path / "two", "2 pickles")
    with zipfile.ZipFile(tmp_path / "deflated", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", STATE)
        archive.writestr("a/data/0", bytes(16))
    refused(tmp_path / "deflated", "compressed")


def legacy(value: bytes, keys: list[str], storages: bytes, version: int = 1001) -> bytes:
    head = LEGACY_TORCH + pickle.dumps(version, 2) + pickle.dumps({"little_endian": True}, 2)
    return head + value + pickle.dumps(keys, 2) + storages


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (legacy(STATE, ["0"], struct.pack("<q", 3) + bytes(12)), "more are needed"),
        (legacy(STATE, ["0"], struct.pack("<q", -1) + bytes(16)), "more are needed"),
        (legacy(STATE, ["0"], struct.pack("<q", 1 << 60)), "are wanted"),
        (legacy(STATE, ["0"], struct.pack("<q", 4) + bytes(15)), "are wanted"),
        (legacy(STATE, ["0"], b"\4\0\0"), "are wanted"),
        (legacy(STATE, [], b""), "is missing"),
        (legacy(STATE, ["0"], b"", version=1002), "unknown version"),
    ],
)
def test_legacy_storages_are_checked(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "m").write_bytes(data)
    refused(tmp_path / "m", words)


def test_a_legacy_checkpoint_made_by_hand_is_read() -> None:
    numbers = struct.pack("<4f", 1, 2, 3, 4)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m")
        path.write_bytes(legacy(STATE, ["0"], struct.pack("<q", 4) + numbers))
        assert load(path) == {"w": ("float32", (2, 2), numbers)}
