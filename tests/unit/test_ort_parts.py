"""The pieces under ONNX Runtime sessions: keys, graphs whose weights lie elsewhere, made-up inputs."""

from __future__ import annotations

import builtins
import io
from typing import Any

import numpy as np
import pytest

ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from helpers import onnx_models  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from trims.disk.importers import onnx_tensors  # noqa: E402
from trims.errors import BadInput  # noqa: E402
from trims.integrations import ort_graph, ort_inputs, ort_key  # noqa: E402

X86 = "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 avx512f {} \nbugs\t: spectre\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {} sve bf16\n"


def isa_of(text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    real = builtins.open
    monkeypatch.setattr(
        builtins,
        "open",
        lambda path, *a, **k: io.BytesIO(text.encode()) if path == "/proc/cpuinfo" else real(path, *a, **k),
    )
    return ort_key.isa.__wrapped__()


def test_a_key_follows_the_vector_extensions_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isa_of(X86.format(""), monkeypatch) == isa_of(X86.format("ibrs md_clear"), monkeypatch)
    assert isa_of(X86.format(""), monkeypatch) != isa_of(X86.format("avx512_vnni"), monkeypatch)
    assert isa_of(ARM.format(""), monkeypatch) != isa_of(ARM.format("asimddp"), monkeypatch)
    assert len(isa_of("", monkeypatch)) == 12


def test_a_key_is_a_file_name_that_names_the_release() -> None:
    assert ort_key.variant_key() == f"ort-{ort.__version__}-cpu-all-{ort_key.isa()}"
    assert set(ort_key.variant_key()) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-+")


def external(name: str, nbytes: int, offset: int = 0) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[nbytes // 4], data_location=TensorProto.EXTERNAL)
    onnx_tensors.point(tensor, "trims", offset, nbytes)
    return tensor


def test_weights_move_out_of_and_into_a_graph() -> None:
    proto = onnx_models.branches()
    source = onnx_models.onnx_source(proto)
    assert source.graph is not None
    skeleton = source.graph({"w": 512})
    assert ort_graph.span(onnx.load_from_string(skeleton).graph.initializer[0]) == (512, 4096)
    data = bytes(512) + bytes(source.tensors[0].read())
    assert ort_graph.complete(skeleton, lambda at, n: data[at : at + n]) == proto.SerializeToString()


def test_weights_of_branches_are_found_at_any_depth() -> None:
    inner = helper.make_graph([], "inner", [], [], [external("deep", 8)])
    loop = helper.make_node("Loop", ["n", ""], ["r"], body=inner)
    constant = helper.make_node("Constant", [], ["k"], value=external("k", 4, 8))
    outer = helper.make_graph([loop, constant], "outer", [], [], [external("w", 8)])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer)
    model = helper.make_model(helper.make_graph([branch], "g", [], [], [external("top", 8)]))
    assert sorted(t.name for t in onnx_tensors.inner_tensors(model)) == ["deep", "deep", "k", "k", "w", "w"]
    ort_graph.inline_inner(model, lambda at, n: bytes(range(at, at + n)))
    assert not any(onnx_tensors.is_external(t) for t in onnx_tensors.inner_tensors(model))
    assert {t.raw_data for t in onnx_tensors.inner_tensors(model)} == {bytes(range(8)), bytes(range(8, 12))}
    assert onnx_tensors.is_external(model.graph.initializer[0])


def test_external_data_without_a_length_is_refused() -> None:
    tensor = external("w", 8)
    del tensor.external_data[2]
    with pytest.raises(BadInput, match="'w' of the graph is malformed"):
        ort_graph.span(tensor)


def test_types_that_a_manifest_lacks_are_stored_as_bytes() -> None:
    four_bit = TensorProto(name="q", data_type=TensorProto.INT4, dims=[6])
    assert ort_graph.stored_as(four_bit, 3) == ("uint8", (3,))
    assert ort_graph.stored_as(external("w", 8), 8) == ("float32", (2,))


def session(*inputs: Any) -> Any:
    nodes = [helper.make_node("Identity", [i.name], [f"{i.name}.y"]) for i in inputs]
    outputs = [helper.make_tensor_value_info(f"{i.name}.y", i.type.tensor_type.elem_type, None) for i in inputs]
    graph = helper.make_graph(nodes, "g", list(inputs), outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return ort.InferenceSession(model.SerializeToString())


def test_inputs_are_made_up_for_every_shape() -> None:
    value = helper.make_tensor_value_info
    made = ort_inputs.made_up(
        session(
            value("a", TensorProto.FLOAT, ["n", 3, "t"]),
            value("b", TensorProto.INT64, [None, None]),
            value("c", TensorProto.FLOAT16, [2, "n"]),
            value("d", TensorProto.BOOL, []),
        ),
        symbolic=16,
    )
    assert {name: array.shape for name, array in made.items()} == {"a": (1, 3, 16), "b": (1, 16), "c": (2, 1), "d": ()}
    assert {name: str(array.dtype) for name, array in made.items()} == {
        "a": "float32", "b": "int64", "c": "float16", "d": "bool",
    }  # fmt: skip
    assert set(made["b"].ravel().tolist()) <= {0, 1}


def test_what_cannot_be_made_up_is_said() -> None:
    with pytest.raises(ort_inputs.CannotMakeUp, match="s"):
        ort_inputs.made_up(session(helper.make_tensor_value_info("s", TensorProto.STRING, [1])))
    with pytest.raises(ort_inputs.CannotMakeUp, match="big"):
        ort_inputs.made_up(session(helper.make_tensor_value_info("big", TensorProto.FLOAT, [1 << 20, 1 << 20])))


def test_sizes_are_tried_until_the_model_takes_them() -> None:
    """A reflecting pad needs more than one item."""
    pads = numpy_helper.from_array(np.array([0, 3, 0, 3], np.int64), "p")
    graph = helper.make_graph(
        [helper.make_node("Pad", ["x", "p"], ["y"], mode="reflect")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [pads],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    inputs, outputs = ort_inputs.first_run(ort.InferenceSession(model.SerializeToString(), options))
    assert inputs["x"].shape == (1, 16) and outputs[0][1] == "(1, 22)"
