"""ONNX models: what leaves the graph, what stays in it, and that ONNX Runtime computes the same bits either way."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from helpers.capabilities import needs_onnxruntime
from helpers.importing import contents, load, outputs, plain_session, refused, region, session_over
from helpers.models import ModelFiles, cnn, cnn_input
from helpers.onnx_models import branches
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from trims.disk.importers import open_source
from trims.errors import BadInput
from trims.manifest import STORAGE

LARGE = ["conv1.weight", "conv2.weight", "reduce", "mix.a", "mix.b", "head.weight"]
"""The CNN's initializers of 1024 bytes and more, in the order in which its graph uses them."""


def save(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def initializers(graph: bytes) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load_from_string(graph).graph.initializer}


def external(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def test_large_initializers_leave_in_order_of_first_use(models: ModelFiles) -> None:
    with open_source(models.onnx) as source:
        assert source.format == "onnx"
        assert [tensor.name for tensor in source.tensors] == LARGE
        assert source.origin["opset"] == {"ai.onnx": 17}
        known = {t.name: numpy_helper.to_array(t) for t in cnn().graph.initializer}
        for name, (dtype, shape, data) in contents(source).items():
            assert (dtype, shape, data) == ("float32", known[name].shape, known[name].tobytes())


def test_order_is_that_of_use_not_of_the_file(tmp_path: Path) -> None:
    model = cnn()
    backwards = list(reversed(model.graph.initializer))
    del model.graph.initializer[:]
    model.graph.initializer.extend(backwards)
    unused = numpy_helper.from_array(np.zeros(300, np.float32), "unused")
    model.graph.initializer.insert(0, unused)
    with open_source(save(tmp_path / "m.onnx", model)) as source:
        assert [tensor.name for tensor in source.tensors] == [*LARGE, "unused"]


def test_the_graph_points_into_the_region_and_keeps_what_is_small(models: ModelFiles) -> None:
    with open_source(models.onnx) as source:
        offsets = {name: 512 * n for n, name in enumerate(LARGE)}
        graph = source.graph(offsets)
        assert graph == source.graph(offsets)
        sizes = {tensor.name: len(tensor.read()) for tensor in source.tensors}
    assert len(graph) < 5000
    found = initializers(graph)
    for name in LARGE:
        assert external(found[name]) == {"location": "trims", "offset": str(offsets[name]), "length": str(sizes[name])}
        assert not found[name].raw_data
    assert np.array_equal(numpy_helper.to_array(found["flat"]), [1, -1])
    assert set(found) == {t.name for t in cnn().graph.initializer}


def test_payloads_are_views_of_the_file(models: ModelFiles) -> None:
    for path in (models.onnx, models.onnx_external):
        with open_source(path) as source:
            assert {type(tensor.read().obj).__name__ for tensor in source.tensors} == {"mmap"}


def test_external_data_are_the_same_model(models: ModelFiles) -> None:
    with open_source(models.onnx) as inline, open_source(models.onnx_external) as outside:
        assert contents(inline) == contents(outside)
        offsets = {name: 512 * n for n, name in enumerate(LARGE)}
        assert inline.graph(offsets) == outside.graph(offsets)
        assert outside.origin["external"] == ["cnn.bin"]


@pytest.mark.parametrize("form", ["onnx", "onnx_external"])
@needs_onnxruntime
def test_a_session_over_the_region_computes_the_same_bits(models: ModelFiles, form: str) -> None:
    path = getattr(models, form)
    with open_source(path) as source:
        graph, buffer = region(source)
    feeds = {"x": cnn_input()}
    assert outputs(session_over(graph, buffer), feeds) == outputs(plain_session(str(path)), feeds)


def one_weight(
    dtype: int, fill: Callable[[onnx.TensorProto], None], dims: tuple[int, ...] = (16, 64)
) -> onnx.ModelProto:
    """A model whose one weight is filled in by hand."""
    weight = TensorProto(name="w", data_type=dtype, dims=dims)
    fill(weight)
    node = helper.make_node("Identity", ["w"], ["y"])
    result = helper.make_tensor_value_info("y", dtype, dims)
    graph = helper.make_graph([node], "g", [], [result], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


DTYPES = {
    TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64", TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16", TensorProto.INT8: "int8", TensorProto.INT16: "int16",
    TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.UINT8: "uint8",
    TensorProto.UINT16: "uint16", TensorProto.UINT32: "uint32", TensorProto.UINT64: "uint64",
    TensorProto.BOOL: "bool", TensorProto.COMPLEX64: "complex64", TensorProto.COMPLEX128: "complex128",
    TensorProto.FLOAT8E4M3FN: "float8_e4m3fn", TensorProto.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
    TensorProto.FLOAT8E5M2: "float8_e5m2", TensorProto.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
}  # fmt: skip


def values(dtype: str, seed: int, shape: tuple[int, ...] = (16, 64)) -> np.ndarray[Any, Any]:
    kind = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == "bool" else 256, shape[0] * shape[1] * kind.itemsize)
    return raw.astype(np.uint8).view(kind).reshape(shape)


@given(st.sampled_from(sorted(DTYPES)), st.integers(0, 100), st.booleans())
def test_reads_raw_and_typed_fields_of_every_dtype(kind: int, seed: int, raw: bool) -> None:
    array = values(DTYPES[kind], seed)

    def fill(tensor: onnx.TensorProto) -> None:
        if raw:
            tensor.raw_data = array.tobytes()
        elif kind in (TensorProto.FLOAT, TensorProto.COMPLEX64):
            # As a stranger may have packed them: through the wire, since a signalling NaN does not survive Python.
            tensor.MergeFromString(b"\x22" + _varint(array.nbytes) + array.tobytes())
        elif kind in (TensorProto.DOUBLE, TensorProto.COMPLEX128):
            tensor.MergeFromString(b"\x52" + _varint(array.nbytes) + array.tobytes())
        elif kind == TensorProto.INT64:
            tensor.int64_data.extend(array.ravel().tolist())
        elif kind in (TensorProto.UINT32, TensorProto.UINT64):
            tensor.uint64_data.extend(array.ravel().tolist())
        else:
            small_float = array.dtype.name == "float16" or array.dtype.name in STORAGE
            bits = array.view(f"u{array.itemsize}") if small_float else array
            tensor.int32_data.extend(int(n) for n in bits.ravel())

    with tempfile.TemporaryDirectory() as directory:
        path = save(Path(directory, "m"), one_weight(kind, fill))
        assert load(path) == {"w": (DTYPES[kind], array.shape, array.tobytes())}


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14])


def test_what_no_region_can_hold_stays_in_the_graph(tmp_path: Path) -> None:
    strings = helper.make_tensor("w", TensorProto.STRING, [200], [b"word%d" % n for n in range(200)])
    path = save(tmp_path / "s", one_weight(TensorProto.STRING, lambda w: w.CopyFrom(strings), (200,)))
    int4 = tmp_path / "i"
    save(int4, one_weight(TensorProto.INT4, lambda w: setattr(w, "raw_data", bytes(range(256)) * 8), (64, 64)))
    for stays in (path, int4):
        with open_source(stays) as source:
            assert source.tensors == []
            assert initializers(source.graph({}))["w"] == onnx.load(stays).graph.initializer[0]


def constants(ir_version: int = 9) -> onnx.ModelProto:
    """A model whose weights are Constant nodes: two large, one small, one of them also an output."""
    rng = np.random.default_rng(0)
    make = helper.make_node

    def constant(name: str, *shape: int) -> onnx.NodeProto:
        array = rng.standard_normal(shape).astype(np.float32)
        return make("Constant", [], [name], value=numpy_helper.from_array(array, f"{name}.value"))

    nodes = [
        constant("b", 32, 32), constant("a", 32, 32), constant("small", 32), constant("out", 16, 32),
        make("MatMul", ["x", "a"], ["h"]), make("MatMul", ["h", "b"], ["g"]), make("Add", ["g", "small"], ["y"]),
    ]  # fmt: skip
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "constants",
        [info("x", TensorProto.FLOAT, [1, 32])],
        [info("y", TensorProto.FLOAT, [1, 32]), info("out", TensorProto.FLOAT, [16, 32])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)


@needs_onnxruntime
def test_large_constants_are_lifted(tmp_path: Path) -> None:
    path = save(tmp_path / "m", constants())
    with open_source(path) as source:
        assert [tensor.name for tensor in source.tensors] == ["a", "b"]
        graph, buffer = region(source)
    left = [node.output[0] for node in onnx.load_from_string(graph).graph.node if node.op_type == "Constant"]
    assert left == ["small", "out"]
    onnx.checker.check_model(whole(graph, buffer))
    feeds = {"x": np.random.default_rng(1).standard_normal((1, 32)).astype(np.float32)}
    assert outputs(session_over(graph, buffer), feeds) == outputs(plain_session(str(path)), feeds)


def whole(graph: bytes, buffer: np.ndarray[Any, Any]) -> onnx.ModelProto:
    """The model with its tensors from the region inside."""
    model = onnx.load_from_string(graph)
    for tensor in model.graph.initializer:
        at = external(tensor)
        if at:
            tensor.raw_data = buffer[int(at["offset"]) :][: int(at["length"])].tobytes()
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return model


def test_constants_of_an_old_model_stay(tmp_path: Path) -> None:
    """Before IR version 4 an initializer had to be an input of the graph."""
    model = constants(ir_version=3)
    with open_source(save(tmp_path / "m", model)) as source:
        assert source.tensors == []
        assert onnx.load_from_string(source.graph({})) == model


@pytest.mark.parametrize("outside", [False, True])
@needs_onnxruntime
def test_weights_of_branches_stay_inside(tmp_path: Path, outside: bool) -> None:
    path = tmp_path / "m.onnx"
    if outside:
        model = branches()
        data = bytearray()
        for attribute in model.graph.node[-1].attribute:
            for tensor in attribute.g.initializer:
                _put_outside(tensor, data)
        (tmp_path / "m.bin").write_bytes(data)
        save(path, model)
    else:
        save(path, branches())
    with open_source(path) as source:
        assert [tensor.name for tensor in source.tensors] == ["w"]
        graph, buffer = region(source)
    x = np.random.default_rng(1).standard_normal((1, 32)).astype(np.float32)
    over, plain = session_over(graph, buffer), plain_session(branches().SerializeToString())
    for c in (True, False):
        assert outputs(over, {"x": x, "c": np.array(c)}) == outputs(plain, {"x": x, "c": np.array(c)})


def _put_outside(tensor: onnx.TensorProto, data: bytearray, **given: str) -> None:
    """Move the raw data of `tensor` to the end of `data`."""
    entries = {"location": "m.bin", "offset": str(len(data)), "length": str(len(tensor.raw_data)), **given}
    data += tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def outside_model(directory: Path, **given: str) -> Path:
    """A model with one external weight of 4 KiB; `given` replaces what it says of it."""
    model, data = one_weight(TensorProto.FLOAT, lambda w: setattr(w, "raw_data", bytes(range(256)) * 16)), bytearray(64)
    _put_outside(model.graph.initializer[0], data, **given)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "m.bin").write_bytes(data)
    return save(directory / "m.onnx", model)


def test_external_data_at_an_offset(tmp_path: Path) -> None:
    assert load(outside_model(tmp_path)) == {"w": ("float32", (16, 64), bytes(range(256)) * 16)}


def test_external_data_without_a_length_are_as_long_as_the_tensor(tmp_path: Path) -> None:
    path = outside_model(tmp_path)
    model = onnx.load(path, load_external_data=False)
    del model.graph.initializer[0].external_data[2]
    assert load(save(path, model))["w"][2] == bytes(range(256)) * 16


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"location": "../m.bin"}, "no file of its own directory"),
        ({"location": "/etc/hostname"}, "no file of its own directory"),
        ({"location": "a/../../m.bin"}, "no file of its own directory"),
        ({"location": ""}, "no file of its own directory"),
        ({"location": "a\0b"}, "no file of its own directory"),
        ({"location": "link"}, "leads out of its directory"),
        ({"location": "sub/m.bin"}, "leads out of its directory"),
        ({"location": "gone.bin"}, "no such file"),
        ({"location": "pipe"}, "is a FIFO"),
        ({"location": "m.onnx"}, "names itself"),
        ({"location": "\x1b[2J"}, "no such file"),
        ({"offset": "65"}, "are wanted"),
        ({"offset": "-1"}, "are wanted"),
        ({"offset": str(1 << 70)}, "are wanted"),
        ({"offset": "1e3"}, "does not say where"),
        ({"length": "4095"}, "needs 4096 bytes, its external data have 4095"),
        ({"length": "-1"}, "needs 4096 bytes"),
    ],
)
def test_external_data_are_the_models_own_and_whole(tmp_path: Path, given: dict[str, str], words: str) -> None:
    path = outside_model(tmp_path / "m", **given)
    (tmp_path / "m.bin").write_bytes(bytes(5000))
    (path.parent / "link").symlink_to(tmp_path / "m.bin")
    (path.parent / "sub").symlink_to(tmp_path)
    os.mkfifo(path.parent / "pipe")
    with pytest.raises(BadInput, match=words) as caught:
        load(path)
    assert str(caught.value).isprintable()


def test_a_hub_checkout_links_model_and_data_into_one_directory(tmp_path: Path) -> None:
    path = outside_model(tmp_path / "made")
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    path.rename(blobs / "aa")
    (tmp_path / "made" / "m.bin").rename(blobs / "bb")
    (snapshot / "m.onnx").symlink_to("../../blobs/aa")
    (snapshot / "m.bin").symlink_to("../../blobs/bb")
    assert load(snapshot / "m.onnx")["w"][2] == bytes(range(256)) * 16
    assert load(snapshot)["w"][2] == bytes(range(256)) * 16


def test_a_link_to_a_model_finds_the_data_beside_the_model(tmp_path: Path) -> None:
    path = outside_model(tmp_path / "made")
    (tmp_path / "m.onnx").symlink_to(path)
    assert load(tmp_path / "m.onnx")["w"][2] == bytes(range(256)) * 16


def test_external_data_larger_than_protobuf_allows_are_never_read_whole(tmp_path: Path) -> None:
    """A sparse file of 5 GiB: mapped, not read."""
    size = 5 << 30
    model = one_weight(TensorProto.FLOAT, lambda w: None, (5 << 10, 1 << 18))
    weight = model.graph.initializer[0]
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "m.bin"), ("length", str(size))):
        weight.external_data.add(key=key, value=value)
    with open(tmp_path / "m.bin", "wb") as file:
        file.truncate(size)
        file.seek(size - 4)
        file.write(b"last")
    with open_source(save(tmp_path / "m.onnx", model)) as source:
        view = source.tensors[0].read()
        assert len(view) == size
        assert bytes(view[-4:]) == b"last"
        assert external(initializers(source.graph({"w": 0}))["w"])["length"] == str(size)
        del view


def test_a_producer_that_looks_like_another_format(tmp_path: Path) -> None:
    """The ninth byte of a safetensors file is a brace; that of this model, too."""
    model = cnn()
    model.producer_name = "name{x}"
    path = save(tmp_path / "m", model)
    assert path.read_bytes()[8:9] == b"{"
    assert set(load(path)) == set(LARGE)


def two_graphs(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString() * 2


def no_graph(model: onnx.ModelProto) -> bytes:
    model.ClearField("graph")
    return model.SerializeToString()


def twice_the_same_name(model: onnx.ModelProto) -> bytes:
    model.graph.initializer.append(model.graph.initializer[0])
    return model.SerializeToString()


def no_name(model: onnx.ModelProto) -> bytes:
    model.graph.initializer[0].name = ""
    return model.SerializeToString()


def long_name(model: onnx.ModelProto) -> bytes:
    model.graph.initializer[0].name = "n" * 100_000
    return model.SerializeToString()


def no_unicode(model: onnx.ModelProto) -> bytes:
    return model.SerializeToString().replace(b"head.weight", b"head.\xffeight")


def wrong_size(model: onnx.ModelProto) -> bytes:
    model.graph.initializer[0].dims[0] += 1
    return model.SerializeToString()


def negative(model: onnx.ModelProto) -> bytes:
    model.graph.initializer[0].dims[0] *= -1
    return model.SerializeToString()


def huge(model: onnx.ModelProto) -> bytes:
    model.graph.initializer[0].dims.extend([1 << 62] * 8)
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (two_graphs, "known format"),
        (no_graph, "known format"),
        (twice_the_same_name, "two initializers named"),
        (no_name, "without a name"),
        (long_name, "too long"),
        (no_unicode, "damaged"),
        (wrong_size, "needs 1836 bytes, it has 1728"),
        (negative, "negative dimension"),
        (huge, "needs"),
    ],
)
def test_malformed_models_are_refused(tmp_path: Path, spoil: Callable[[onnx.ModelProto], bytes], words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(spoil(cnn()))
    refused(tmp_path / "m.onnx", words)


def test_a_cut_model_is_refused(tmp_path: Path, models: ModelFiles) -> None:
    (tmp_path / "m.onnx").write_bytes(models.onnx.read_bytes()[:-100_000])
    refused(tmp_path / "m.onnx", "no known format")
    refused(tmp_path / "m.onnx", "may be cut", format="onnx")


def feeds_of(session: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs that the packaged models run with."""
    rng = np.random.default_rng(0)
    kinds = {
        "tensor(float)": np.float32,
        "tensor(float16)": np.float16,
        "tensor(int64)": np.int64,
        "tensor(int32)": np.int32,
    }
    made = {}
    for value in session.get_inputs():
        shape = [n if isinstance(n, int) else 1 for n in value.shape]
        if len(shape) == 4:
            shape = [n if isinstance(n, int) and n > 1 else m for n, m in zip(value.shape, [1, 3, 64, 64], strict=True)]
        made[value.name] = (rng.standard_normal(shape) * 8).astype(kinds[value.type])
    return made


@needs_onnxruntime
def test_packaged_models_compute_the_same_bits(real_models: Path) -> None:
    found = sorted(path for path in real_models.rglob("*.onnx") if path.stat().st_size < 100 << 20)
    assert found
    ran = 0
    for path in found:
        with open_source(path) as source:
            graph, buffer = region(source)
        over, plain = session_over(graph, buffer), plain_session(str(path))
        assert [value.name for value in over.get_inputs()] == [value.name for value in plain.get_inputs()]
        try:
            feeds = feeds_of(plain)
            want = outputs(plain, feeds)
        except Exception:
            continue  # its inputs are not that simple; that it loads has been seen
        assert outputs(over, feeds) == want, path
        ran += 1
    assert ran


def test_no_tensor_anywhere_in_a_graph_points_at_a_file(tmp_path: Path) -> None:
    """Whoever runs the graph would read that file with rights that its author may not have."""
    (tmp_path / "data").write_bytes(b"abcd" * 4)

    def outside() -> onnx.TensorProto:
        tensor = onnx.TensorProto(name="t", data_type=onnx.TensorProto.UINT8, dims=[4])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", "data"), ("length", "4")):
            tensor.external_data.add(key=key, value=value)
        return tensor

    make = onnx.helper.make_node
    model = onnx.helper.make_model(
        onnx.helper.make_graph([make("f", [], ["y"], domain="own")], "g", [], [
            onnx.helper.make_tensor_value_info("y", onnx.TensorProto.UINT8, [4])
        ])
    )  # fmt: skip
    default = onnx.helper.make_attribute("v", outside())
    function = onnx.helper.make_function("own", "f", [], ["y"], [make("Constant", [], ["y"], value=outside())], [])
    function.attribute_proto.append(default)
    model.functions.append(function)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    with open_source(path) as source:
        graph = source.graph({})
    assert b"external" not in graph
    kept = onnx.load_from_string(graph).functions[0]
    for tensor in (kept.attribute_proto[0].t, kept.node[0].attribute[0].t):
        assert (tensor.raw_data, len(tensor.external_data)) == (b"abcd", 0)
