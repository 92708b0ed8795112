"""The paper's models as graphs: true counts and sizes, and ONNX Runtime runs them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from trims.workload import zoo
from trims.workload.zoo import graphs
from trims.workload.zoo.light import light
from trims.workload.zoo.output import Output
from trims.workload.zoo.table import ARCHITECTURES, LIGHT

ort = pytest.importorskip("onnxruntime")
ROWS = {model.spec.name: model for model in zoo.paper_models()}


def run(model: onnx.ModelProto | str) -> np.ndarray:
    """The answer of the network to a seeded image."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model if isinstance(model, str) else model.SerializeToString(), options)
    (wanted,) = session.get_inputs()
    image = np.random.default_rng(0).standard_normal(wanted.shape).astype(np.float32)
    (answer,) = session.run(None, {wanted.name: image})
    return np.asarray(answer)


def test_every_model_of_the_table_has_a_graph() -> None:
    assert {model.spec.name: model.architecture for model in ROWS.values()} == ARCHITECTURES
    assert len(ARCHITECTURES) == 37 and set(LIGHT) <= set(ARCHITECTURES)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_graph_has_the_tables_number_of_tensors(name: str) -> None:
    model = graphs.graph(name, 0, 0.05).filled()
    onnx.checker.check_model(model, full_check=True)
    assert graphs.weights(model)[0] == ROWS[name].spec.tensors


def test_a_graph_is_written_as_it_is_held(tmp_path: Path) -> None:
    steps: list[int] = []
    with open(tmp_path / "m.onnx", "wb", buffering=0) as file:
        graphs.graph("DPN68", 3, 0.2).write(Output(file.fileno(), steps.append))
    written, held = onnx.load(tmp_path / "m.onnx"), graphs.graph("DPN68", 3, 0.2).filled()
    assert written.SerializeToString(deterministic=True) == held.SerializeToString(deterministic=True)
    assert sum(steps) == (tmp_path / "m.onnx").stat().st_size


@pytest.mark.parametrize(
    "name",
    ["ResNet50", "ResNet34-v2", "ResNeXt50-32x4d", "Inception-BN-v3", "NIN", "DPN68", "Xception", "Inception-v3"],
)
def test_a_graph_has_the_tables_size(name: str) -> None:
    nbytes = graphs.graph(name).nbytes
    assert nbytes / 2**20 == pytest.approx(ROWS[name].paper_mib, rel=0.035)


@pytest.mark.parametrize("width", [0.05, 0.11])
@pytest.mark.parametrize(
    "name", ["AlexNet", "CaffeNet", "ResNet18-v2", "ResNet269-v2", "ResNeXt101", "VGG16-SOD", "DPN68", "Inception-v4"]
)
def test_a_narrowed_network_runs_and_stays_finite(name: str, width: float) -> None:
    answer = run(graphs.graph(name, 0, width).filled())
    assert np.isfinite(answer).all() and answer.std() > 0


def test_branches_meet_in_networks_that_run() -> None:
    for name in ("GoogLeNet", "Inception-BN-v3", "SqueezeNet-v1.0", "Xception", "Inception-ResNet-v2"):
        answer = run(graphs.graph(name, 1, 0.25).filled())
        assert answer.shape == (1, 250) and np.isfinite(answer).all(), name


def test_light_models_run_with_seeded_weights() -> None:
    model = light("light_squeezenet", 5)
    assert graphs.weights(model) == (52, 4 * 1_235_496)  # Iandola et al. 2016, Table 1: 1.24 M parameters
    assert np.isfinite(run(model)).all()
    assert model.SerializeToString(deterministic=True) == light("light_squeezenet", 5).SerializeToString(
        deterministic=True
    )
    assert model.SerializeToString(deterministic=True) != light("light_squeezenet", 6).SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("name", ["GoogLeNet", "ResNet50"])
def test_light_models_have_the_tables_size(name: str) -> None:
    tensors, nbytes = graphs.weights(light(LIGHT[name]))
    assert nbytes / 2**20 == pytest.approx(ROWS[name].paper_mib, rel=0.02)
    assert ROWS[name].spec.tensors - 4 <= tensors <= ROWS[name].spec.tensors  # no normalisation of the input


def test_built_graphs_say_what_they_are_and_run(tmp_path: Path) -> None:
    models = [ROWS["SqueezeNet-v1.1"], ROWS["SqueezeNet-v1.0"]]
    first, second = zoo.build(models, tmp_path)
    assert (first.runs, first.synthetic, second.runs, second.synthetic) == ("onnxruntime", False, "weights", True)
    assert zoo.sources([first, second]) == ["onnx light_squeezenet", "synthetic"]
    graph, twin = zoo.build(models[:1], tmp_path, architectures=True) + zoo.build(
        models[:1], tmp_path, weights_only=True
    )
    assert zoo.sources([graph, twin]) == ["architecture", "synthetic"]
    assert (graph.tensors, graph.runs, twin.tensors, twin.runs) == (52, "onnxruntime", 52, "weights")
    assert {entry.key: entry.value for entry in onnx.load(first.file).metadata_props} == {
        "model": "SqueezeNet-v1.1", "source": "onnx light_squeezenet", "synthetic": "false", "seed": "0",
    }  # fmt: skip
    assert np.isfinite(run(first.file)).all() and np.isfinite(run(graph.file)).all()


def test_graphs_narrow_to_about_the_scale_with_all_their_tensors(tmp_path: Path) -> None:
    models = [model for model in zoo.paper_models(0.01) if model.spec.name in ("VGG16", "ResNet50", "DPN68")]
    calls: list[tuple[str, int, int]] = []
    specs = zoo.build(models, tmp_path, scale=0.01, architectures=True, progress=lambda *call: calls.append(call))
    goal = sum(model.spec.nbytes for model in models)
    assert calls[0] == ("DPN68", 0, goal) and calls[-1] == ("VGG16", goal, goal)  # whatever the graphs came to
    assert zoo.sources(specs) == ["narrowed architecture"] * 3
    for spec in specs:
        assert not spec.synthetic and spec.tensors == ROWS[spec.name].spec.tensors
        about = 0.35 if spec.name == "DPN68" else 0.1  # 32 groups do not divide further
        assert spec.nbytes == pytest.approx(0.01 * ROWS[spec.name].spec.nbytes, rel=about)
        weights = [i for i in onnx.load(spec.file).graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
        assert 4 * sum(math.prod(i.dims) for i in weights) == spec.nbytes
