"""Exports: each format's own library reads back the same bits, and nothing is written that should not be."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from helpers import models as model_files
from helpers import sources, stores
from helpers.capabilities import is_root, needs_onnxruntime, needs_torch
from helpers.importing import expected, load, outputs, plain_session
from helpers.models import ModelFiles, cnn_input
from hypothesis import given
from hypothesis import strategies as st

from trims.disk import exporters
from trims.disk.catalog import Entry
from trims.disk.exporters import export_model
from trims.disk.exporters import onnx as onnx_exporter
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import Store
from trims.errors import BadInput, Damaged, NotPermitted, TrimsError, UsageError

CODECS = pytest.mark.parametrize("codec", ["none", "zstd"])


@pytest.fixture
def store(store_root: Path) -> Store:
    return stores.fresh(store_root)


def put(store: Store, path: Path, codec: str = "none", ref: str = "m") -> Entry:
    with open_source(path) as source:
        return import_model(store, source, ref, codec=codec).entry


def put_arrays(store: Store, arrays: dict[str, Any], ref: str = "m") -> Entry:
    return import_model(store, sources.source(arrays), ref).entry


@CODECS
def test_safetensors_are_what_the_library_reads(store: Store, models: ModelFiles, tmp_path: Path, codec: str) -> None:
    library = pytest.importorskip("safetensors")
    export_model(store, put(store, models.safetensors, codec), tmp_path / "m.safetensors")
    with library.safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() == {"format": "np"}
        assert expected({name: file.get_tensor(name) for name in file.keys()}) == expected(model_files.arrays())  # noqa: SIM118


@pytest.mark.torch
@needs_torch
def test_safetensors_of_every_dtype_are_what_torch_reads(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    export_model(store, put(store, models.dtypes), tmp_path / "m")
    found = load_file(tmp_path / "m")
    for name, array in model_files.every_dtype().items():
        assert str(found[name].dtype) == f"torch.{array.dtype.name}"
        assert found[name].reshape(-1).view(torch.uint8).numpy().tobytes() == array.tobytes()


def test_tensors_of_an_exported_safetensors_are_aligned(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    export_model(store, put(store, models.dtypes), tmp_path / "m")
    data = (tmp_path / "m").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    for name, fields in json.loads(data[8 : 8 + length]).items():
        assert fields["data_offsets"][0] % model_files.every_dtype()[name].itemsize == 0


@CODECS
def test_npz_is_what_numpy_reads(store: Store, models: ModelFiles, tmp_path: Path, codec: str) -> None:
    export_model(store, put(store, models.npz, codec), tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert expected(dict(file)) == expected({n.replace("/", "."): a for n, a in model_files.arrays().items()})


def test_npy_is_what_numpy_reads(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    export_model(store, put(store, models.npy), tmp_path / "m.npy")
    assert (tmp_path / "m.npy").read_bytes() == models.npy.read_bytes()


def test_h5_is_what_h5py_reads(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    export_model(store, put(store, models.h5), tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        for name, array in model_files.arrays().items():
            assert file[name].dtype == array.dtype
            assert np.array_equal(file[name][()], array)


def test_h5_keeps_every_dtype_and_every_name(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    export_model(store, put(store, models.dtypes), tmp_path / "dtypes.h5", format="h5")
    assert load(tmp_path / "dtypes.h5") == expected(model_files.every_dtype())
    names = [
        "a",
        "a/b",
        "a/b/c",
        "/rooted",
        "double//slash",
        ".",
        "..",
        "x/../y",
        "end/",
        "new\nline",
        "%2F",
        "\N{SNOWMAN}",
    ]
    arrays = {name: np.full(3, n, np.int32) for n, name in enumerate(names)}
    export_model(store, put_arrays(store, arrays), tmp_path / "names.h5", format="h5")
    assert load(tmp_path / "names.h5") == expected(arrays)


@CODECS
@pytest.mark.parametrize("form", ["onnx", "onnx_external"])
@needs_onnxruntime
def test_onnx_computes_the_same_bits(store: Store, models: ModelFiles, tmp_path: Path, codec: str, form: str) -> None:
    original = getattr(models, form)
    written = export_model(store, put(store, original, codec), tmp_path / "m.onnx")
    assert written == [str(tmp_path / "m.onnx")]
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    feeds = {"x": cnn_input()}
    assert outputs(plain_session(str(tmp_path / "m.onnx")), feeds) == outputs(plain_session(str(original)), feeds)
    assert load(tmp_path / "m.onnx") == load(original)


@needs_onnxruntime
def test_onnx_over_the_limit_of_protobuf_has_a_second_file(
    store: Store, models: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_exporter, "MAX_INLINE", 100_000)
    written = export_model(store, put(store, models.onnx), tmp_path / "m.onnx")
    assert written == [str(tmp_path / "m.onnx.data"), str(tmp_path / "m.onnx")]
    assert (tmp_path / "m.onnx").stat().st_size < 10_000
    feeds = {"x": cnn_input()}
    assert outputs(plain_session(str(tmp_path / "m.onnx")), feeds) == outputs(plain_session(str(models.onnx)), feeds)
    assert load(tmp_path / "m.onnx") == load(models.onnx)
    with pytest.raises(UsageError, match="takes two files"):
        export_model(store, put(store, models.onnx), io.BytesIO())
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "m.data").write_text("mine")
    with pytest.raises(UsageError, match=r"m\.data exists"):
        export_model(store, put(store, models.onnx), tmp_path / "again" / "m")
    assert os.listdir(tmp_path / "again") == ["m.data"]


@needs_onnxruntime
def test_packaged_models_survive_store_and_export(store: Store, real_models: Path, tmp_path: Path) -> None:
    found = [path for path in sorted(real_models.rglob("*.onnx")) if path.stat().st_size < 20 << 20]
    assert found
    for number, path in enumerate(found):
        out = tmp_path / f"{number}.onnx"
        export_model(store, put(store, path), out)
        session, original = plain_session(str(out)), plain_session(str(path))
        assert [v.name for v in session.get_outputs()] == [v.name for v in original.get_outputs()]
        assert load(out) == load(path)


@pytest.mark.parametrize("format", ["onnx", "safetensors", "npz", "h5"])
def test_a_stream_gets_the_same_file(store: Store, models: ModelFiles, tmp_path: Path, format: str) -> None:
    entry = put(store, models.onnx)
    stream = io.BytesIO()
    export_model(store, entry, tmp_path / "m", format=format)
    assert export_model(store, entry, stream, format=format) == []
    assert load(tmp_path / "m") == load_bytes(tmp_path, stream.getvalue())


def load_bytes(directory: Path, data: bytes) -> Any:
    (directory / "streamed").write_bytes(data)
    return load(directory / "streamed")


def test_a_pipe_that_cannot_seek_gets_it_too(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    entry = put(store, models.npy)
    for format in ("safetensors", "npz", "npy"):
        read, write = os.pipe()
        with open(read, "rb") as source, open(write, "wb") as sink:
            export_model(store, entry, sink, format=format)
            sink.close()
            (tmp_path / format).write_bytes(source.read())
        assert [value[2] for value in load(tmp_path / format).values()] == [
            model_files.arrays()["embed.weight"].tobytes()
        ]


def test_only_the_chosen_tensors(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    entry = put(store, models.safetensors)
    progress: list[tuple[int, int]] = []
    export_model(
        store, entry, tmp_path / "m", tensors=["layer.*", "scale"], progress=lambda *done: progress.append(done)
    )
    assert sorted(load(tmp_path / "m")) == ["layer.0/b", "layer.0/w", "scale"]
    total = 64 * 64 * 2 + 64 * 4 + 4
    assert progress[-1] == (total, total)
    with pytest.raises(UsageError, match="no tensor matches"):
        export_model(store, entry, tmp_path / "none", tensors=["nothing?"])
    with pytest.raises(UsageError, match="6 tensors are chosen"):
        export_model(store, entry, tmp_path / "none", format="npy")
    with pytest.raises(UsageError, match="all tensors or none"):
        export_model(store, put(store, models.onnx, ref="graph"), tmp_path / "none", tensors=["head.*"])
    assert not (tmp_path / "none").exists()


def test_a_name_with_brackets_is_chosen_as_it_is(store: Store, tmp_path: Path) -> None:
    entry = put_arrays(store, {"w[0]": np.arange(3), "w0": np.arange(2)})
    export_model(store, entry, tmp_path / "m", tensors=["w[0]"])
    assert set(load(tmp_path / "m")) == {"w[0]"}  # as a pattern it would fit the other


@pytest.mark.parametrize(
    ("form", "format", "error", "words"),
    [
        ("safetensors", "onnx", BadInput, "without a graph"),
        ("dtypes", "npz", BadInput, "bfloat16"),
        ("npy", "torch", UsageError, "--format safetensors"),
        ("npy", "gguf", UsageError, "no format 'gguf'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    store: Store, models: ModelFiles, tmp_path: Path, form: str, format: str, error: type[TrimsError], words: str
) -> None:
    entry = put(store, getattr(models, form))
    with pytest.raises(error, match=words):
        export_model(store, entry, tmp_path / "m", format=format)
    assert os.listdir(tmp_path) == []


def test_complex128_goes_to_npz_and_not_to_safetensors(store: Store, tmp_path: Path) -> None:
    arrays = {"c": np.array([1 + 2j])}
    entry = put_arrays(store, arrays)
    export_model(store, entry, tmp_path / "m.npz")
    assert load(tmp_path / "m.npz") == expected(arrays)
    with pytest.raises(BadInput, match="complex128"):
        export_model(store, entry, tmp_path / "m", format="safetensors")


def test_what_is_there_is_kept_unless_forced(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    entry, out = put(store, models.npy), tmp_path / "m.npy"
    out.write_text("precious")
    with pytest.raises(UsageError, match="--force"):
        export_model(store, entry, out)
    assert out.read_text() == "precious"
    (tmp_path / "link").symlink_to(out)
    with pytest.raises(UsageError, match="--force"):
        export_model(store, entry, tmp_path / "link")
    assert export_model(store, entry, tmp_path / "link", force=True) == [str(out)]
    assert (tmp_path / "link").is_symlink()
    assert out.read_bytes() == models.npy.read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["link", "m.npy"]


def test_what_appears_meanwhile_is_kept(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    out = tmp_path / "m.npy"

    def interfere(done: int, total: int) -> None:
        out.write_text("precious")

    with pytest.raises(UsageError, match="exists"):
        export_model(store, put(store, models.npy), out, progress=interfere)
    assert out.read_text() == "precious"
    assert os.listdir(tmp_path) == ["m.npy"]


def test_only_files_are_overwritten(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    entry = put(store, models.npy)
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):  # and no device, which a mistake would take away from the machine
        mode = path.stat().st_mode
        with pytest.raises(UsageError, match="no file"):
            export_model(store, entry, path, force=True)
        assert stat.S_IFMT(path.stat().st_mode) == stat.S_IFMT(mode)


def test_a_new_file_obeys_the_umask(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        export_model(store, put(store, models.npy), tmp_path / "m")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "m").stat().st_mode) == 0o640


def test_a_directory_that_is_missing_or_closed(store: Store, models: ModelFiles, tmp_path: Path) -> None:
    entry = put(store, models.npy)
    with pytest.raises(TrimsError, match="No such file"):
        export_model(store, entry, tmp_path / "missing" / "m")
    if not is_root():
        tmp_path.chmod(0o500)
        with pytest.raises(NotPermitted):
            export_model(store, entry, tmp_path / "m")
        tmp_path.chmod(0o700)


@CODECS
def test_a_damaged_tensor_is_never_passed_on(store: Store, tmp_path: Path, codec: str) -> None:
    arrays = {f"w{n}": sources.numbers(n, 300, 7) for n in range(4)}
    entry = import_model(store, sources.source(arrays), "m", codec=codec).entry
    sidecar = stores.sidecar_of(store, entry.digest)
    if sidecar.frames is None:
        at = sidecar.span_offset + sidecar.manifest.layout.tensors["w2"] + 5
    else:
        at = sidecar.frames[0].offset + sidecar.frames[0].nbytes // 2
    stores.flip(store.paths.container(entry.digest), at * 8)
    with pytest.raises(Damaged):
        export_model(store, entry, tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []


def test_damage_after_the_check_is_found_while_writing(store: Store, tmp_path: Path) -> None:
    """The container is checked when opened; its tensors, again, when they are read."""
    arrays = {f"w{n}": sources.numbers(n, 300, 7) for n in range(4)}
    entry = put_arrays(store, arrays)
    sidecar = stores.sidecar_of(store, entry.digest)
    at = sidecar.span_offset + sidecar.manifest.layout.tensors["w2"] + 5

    def spoil(done: int, total: int) -> None:
        if done == arrays["w0"].nbytes:
            stores.flip(store.paths.container(entry.digest), at * 8)

    with pytest.raises(Damaged, match="w2"):
        export_model(store, entry, tmp_path / "m.npz", progress=spoil)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing(store: Store, models: ModelFiles) -> None:
    entry = put(store, models.npy)
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(TrimsError) as caught:
        export_model(store, entry, full)
    assert caught.value.exit_code == 15


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)


@given(
    shapes=st.dictionaries(names, st.integers(0, 5), min_size=1, max_size=6),
    format=st.sampled_from(["safetensors", "npz", "h5"]),
)
def test_any_names_survive_any_format(
    shapes: dict[str, int], format: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("names")
    store = stores.fresh(directory / "store")
    arrays = {name: np.arange(n, dtype=np.int16) for name, n in shapes.items() if name != "__metadata__"}
    if arrays:
        export_model(store, put_arrays(store, arrays), directory / "m", format=format)
        assert load(directory / "m") == expected(arrays)


def test_every_format_that_is_announced_can_be_written() -> None:
    for format in exporters.FORMATS:
        assert exporters._writer(format)
