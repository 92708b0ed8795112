"""The paper's models as graphs: true counts and sizes, and ONNX Runtime runs them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from trims.workload import zoo
from trims.workload.zoo import exported, graphs
from trims.workload.zoo.light import light
from trims.workload.zoo.table import CONSTRUCTED, LIGHT
from trims.workload.zoo.written import WRITTEN, written

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


def test_every_model_of_the_table_has_a_graph_somewhere() -> None:
    assert set(ROWS) == WRITTEN | set(CONSTRUCTED)
    assert not WRITTEN & set(CONSTRUCTED)
    assert set(CONSTRUCTED.values()) == set(exported.SIDES)
    assert {model.architecture for model in ROWS.values()} == {"trims", *CONSTRUCTED.values()}
    assert set(LIGHT) <= WRITTEN


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_written_network_has_the_tables_number_of_tensors(name: str) -> None:
    model = written(name, 0, 0.05)
    onnx.checker.check_model(model, full_check=True)
    assert graphs.weights(model)[0] == ROWS[name].spec.tensors


@pytest.mark.parametrize("name", ["ResNet50", "ResNet34-v2", "ResNeXt50-32x4d", "GoogLeNet", "Inception-BN-v3", "NIN"])
def test_a_written_network_has_the_tables_size(name: str) -> None:
    nbytes = graphs.weights(written(name, 0))[1]
    assert nbytes / 2**20 == pytest.approx(ROWS[name].paper_mib, rel=0.035)


@pytest.mark.parametrize("width", [0.05, 0.11])
@pytest.mark.parametrize("name", ["AlexNet", "CaffeNet", "ResNet18-v2", "ResNet269-v2", "ResNeXt101", "VGG16-SOD"])
def test_a_narrowed_network_runs_and_stays_finite(name: str, width: float) -> None:
    answer = run(written(name, 0, width))
    assert np.isfinite(answer).all() and answer.std() > 0


def test_branches_meet_in_networks_that_run() -> None:
    for name in ("GoogLeNet", "Inception-BN-v3", "SqueezeNet-v1.0", "SqueezeNet-v1.1"):
        answer = run(written(name, 1, 0.25))
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
    assert zoo.sources([graph, twin]) == ["trims", "synthetic"]
    assert (graph.tensors, graph.runs, twin.tensors, twin.runs) == (52, "onnxruntime", 52, "weights")
    assert {entry.key: entry.value for entry in onnx.load(first.file).metadata_props} == {
        "model": "SqueezeNet-v1.1", "source": "onnx light_squeezenet", "synthetic": "false", "seed": "0",
    }  # fmt: skip
    assert np.isfinite(run(first.file)).all() and np.isfinite(run(graph.file)).all()


def test_graphs_narrow_to_about_the_scale_with_all_their_tensors(tmp_path: Path) -> None:
    models = [model for model in zoo.paper_models(0.01) if model.spec.name in ("VGG16", "ResNet50", "DPN68")]
    dpn, resnet, vgg = zoo.build(models, tmp_path, scale=0.01, architectures=True)
    assert dpn.synthetic and dpn.tensors == 361  # a library's graph comes as it is, so its size could not follow
    for spec in (resnet, vgg):
        assert not spec.synthetic and spec.tensors == ROWS[spec.name].spec.tensors
        assert spec.nbytes == pytest.approx(0.01 * ROWS[spec.name].spec.nbytes, rel=0.1)
        weights = [i for i in onnx.load(spec.file).graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
        assert 4 * sum(math.prod(i.dims) for i in weights) == spec.nbytes


def test_synthetic_tensors_stand_in_for_a_library_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "torchvision", "timm"):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "__init__.py").write_text("raise ImportError('no such library of operators')")
    monkeypatch.syspath_prepend(str(tmp_path / "broken"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    assert exported.is_installed("timm dpn68")
    with pytest.raises(exported.Unavailable, match="no such library of operators"):
        exported.export("timm dpn68")
    (spec,) = zoo.build([ROWS["DPN68"]], tmp_path / "zoo", architectures=True)
    assert spec.synthetic and zoo.sources([spec]) == ["synthetic"] and spec.nbytes == 49 << 20


@pytest.mark.torch
@pytest.mark.skipif(not exported.is_installed("timm dpn68"), reason="timm or torchvision is not installed")
def test_a_librarys_graph_keeps_its_tensors_and_takes_our_weights() -> None:
    model = graphs.graph(ROWS["DPN68"], "timm dpn68", 0, 1.0)
    tensors, nbytes = graphs.weights(model)
    assert tensors == 361 and nbytes / 2**20 == pytest.approx(49, rel=0.02)
    assert np.isfinite(run(model)).all()
    again = graphs.graph(ROWS["DPN68"], "timm dpn68", 0, 1.0)
    assert again.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
