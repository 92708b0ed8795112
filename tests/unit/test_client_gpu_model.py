"""`trims.open` on a simulated GPU, by a scripted manager: places, leases, forks, ends, and what frameworks get."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import capabilities
from helpers.gpu_regions import Made
from helpers.peers import Peer, listening

import trims
from trims.client import capsules, connections, mapping
from trims.devices import drivers, simulated
from trims.errors import DeviceLost, ManagerNotRunning, ManagerUnreachable, UsageError
from trims.wire.messages import Attach, Release

ARRAYS: dict[str, np.ndarray[Any, Any]] = {
    "w": np.random.default_rng(0).standard_normal((3, 1 << 18), np.float32),
    "b": np.arange(8, dtype=np.int64),
    "none": np.zeros((0, 2), np.float32),
}


@pytest.fixture
def path(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv(drivers.SIMULATED, simulated.make(str(home / "gpus")))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("TRIMS_STORE", str(home / "nowhere"))
    monkeypatch.setenv("TRIMS_SOCKET", str(home / "m.sock"))
    yield home / "m.sock"
    connections.close_idle()
    gc.collect()
    mapping._contents.clear()


@pytest.fixture
def made(path: Path) -> Iterator[Made]:
    region = Made(os.environ[drivers.SIMULATED], ARRAYS, b"a graph", {"labels.txt": b"cat\n"})
    yield region
    region.close()


def until_closed(peer: Peer) -> list[int]:
    """The leases that are given back until the client closes."""
    released = []
    while (message := peer.hear()) is not None:
        assert isinstance(message, Release)
        released.append(message.lease)
    return released


def granting(made: Made, *leases: int, places: list[str] | None = None, **changes: Any) -> Callable[[Peer], None]:
    """A manager that grants so many attaches with `made`, and is given all leases back."""
    return granting_each(dict.fromkeys(leases, made), places, **changes)


def granting_each(mades: dict[int, Made], places: list[str] | None = None, **changes: Any) -> Callable[[Peer], None]:
    """The same, with another region for each lease."""

    def script(peer: Peer) -> None:
        peer.welcome()
        released: list[int] = []
        for lease, made in mades.items():
            while isinstance(request := peer.hear(), Release):
                released.append(request.lease)
            assert isinstance(request, Attach) and request.variant == "raw"
            peer.grant_gpu(request, made, lease, **changes)
            if places is not None:
                places.append(request.place)
        assert sorted(released + until_closed(peer)) == sorted(mades)

    return script


# ---- opening


@pytest.mark.parametrize("place", ["gpu", "gpu:0", "gpu:SIM-00000000", "gpu:00000000-0000"])
def test_a_gpu_is_named_by_uuid_on_the_wire(path: Path, made: Made, place: str) -> None:
    places: list[str] = []
    with listening(path, granting(made, 7, places=places)):
        with trims.open("m", place=place) as model:
            assert model.place == made.place and model.variant == "raw" and model.how == "hit"
        connections.close_idle()
        gc.collect()
    assert places == [made.place]


def test_a_model_is_a_mapping_of_its_tensors(path: Path, made: Made) -> None:
    with listening(path, granting(made, 7)):
        with trims.open("m", place="gpu:0") as model:
            assert list(model) == list(ARRAYS) == list(model.tensors())
            assert len(model) == 3 and "w" in model and "x" not in model
            for name, array in ARRAYS.items():
                assert model[name].get().tobytes() == model.tensors()[name].get().tobytes() == array.tobytes()
            assert model.graph == b"a graph" and dict(model.files) == {"labels.txt": b"cat\n"}
            assert model.manifest.tensors == made.manifest.tensors
            assert model.nbytes == sum(array.nbytes for array in ARRAYS.values())
            assert (model.memory().shared, model.memory().private) == (sum(made.sizes), 0)
            with pytest.raises(KeyError, match="no tensor 'x'"):
                model["x"]
        connections.close_idle()


def test_a_view_outlives_its_model_and_keeps_the_lease(path: Path, made: Made) -> None:
    with listening(path, granting(made, 7)):
        model = trims.open("m", place="gpu:0")
        view = model["w"]
        model.close()
        assert model.in_use and model.memory().shared == sum(made.sizes)
        assert view.get().tobytes() == ARRAYS["w"].tobytes()
        del view
        assert not model.in_use and model.memory().shared == 0
        connections.close_idle()


def test_leases_of_two_opens_end_apart(path: Path, made: Made) -> None:
    heard: list[Any] = []

    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach_gpu(made, 1)
        peer.attach_gpu(made, 2)
        heard.append(peer.hear())
        heard.extend(until_closed(peer))

    with listening(path, script):
        one, two = trims.open("m", place="gpu:0"), trims.open("m", place="gpu:0")
        one.close()
        assert two["w"].get().tobytes() == ARRAYS["w"].tobytes()
        two.close()
        connections.close_idle()
    assert heard == [Release(lease=1), 2]


def test_a_named_gpu_is_never_something_else(path: Path, made: Made) -> None:
    with pytest.raises(ManagerNotRunning):
        trims.open("m", place="gpu:0")
    with pytest.raises(DeviceLost, match="no GPU 9"):
        trims.open("m", place="gpu:9")
    with listening(path, granting(made, 7, place="host")):
        with pytest.raises(ManagerUnreachable):
            trims.open("m", place="gpu:0")
        connections.close_idle()


def test_another_place_than_a_gpu_does_not_get_one(path: Path, made: Made) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach_gpu(made, 7)
        assert until_closed(peer) == [7]

    with listening(path, script):
        with pytest.raises(ManagerUnreachable):
            trims.open("m", place="host")
        connections.close_idle()


def test_what_cannot_be_mapped_gives_the_lease_back(path: Path, made: Made) -> None:
    with listening(path, granting(made, 7, 8)):
        simulated.fail(os.environ[drivers.SIMULATED], map=[2])
        with pytest.raises(DeviceLost, match="chosen to fail"):
            trims.open("m", place="gpu:0")
        trims.open("m", place="gpu:0").close()
        connections.close_idle()


# ---- processes


def test_a_forked_child_leaves_the_weights_alone(path: Path, made: Made) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach_gpu(made, 7)
        assert until_closed(peer) == []  # after a fork the socket's end says it, once both have closed theirs

    with listening(path, script):
        model = trims.open("m", place="gpu:0")
        view = model["w"]
        pid = os.fork()
        if not pid:
            status = 1
            try:
                assert dict(model.files) == {"labels.txt": b"cat\n"}
                for use in (view.get, lambda: model["w"], model.tensors, model.numpy):
                    with pytest.raises(DeviceLost, match="does not survive a fork"):
                        use()
                model.close()
                del view
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0
        assert view.get().tobytes() == ARRAYS["w"].tobytes()
        model.close()
        del view


ENDS = {
    "a module's name": "model = trims.open('m', place='gpu:0'); view = model['w']",
    "a cycle": "model = trims.open('m', place='gpu:0'); cycle = [model['w']]; cycle.append(cycle); del model",
    "a capsule": "model = trims.open('m', place='gpu:0'); capsule = model['w'].__dlpack__(); sys.keep = capsule",
    "exit handlers": "model = trims.open('m', place='gpu:0'); atexit.register(lambda view: view.get(), model['w'])",
    "a thread": (
        "model = trims.open('m', place='gpu:0'); ready = threading.Event()\n"
        "def hold(view): ready.set(); threading.Event().wait()\n"
        "threading.Thread(target=hold, args=(model['w'],), daemon=True).start(); ready.wait()"
    ),
    "an exception": "model = trims.open('m', place='gpu:0'); view = model['w']; raise SystemExit(0)",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_a_process_may_end_with_open_models(path: Path, made: Made, code: str) -> None:
    def script(peer: Peer) -> None:
        peer.welcome()
        peer.attach_gpu(made, 7)
        until_closed(peer)

    with listening(path, script):
        run = [sys.executable, "-X", "faulthandler", "-c", f"import atexit, sys, threading, trims\n{code}"]
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    made.close()
    driver = simulated.SimulatedDriver(os.environ[drivers.SIMULATED])
    assert driver.usage(driver.gpus()[0].uuid).used == 0


# ---- frameworks


def test_numpy_gets_copies_that_are_counted(path: Path) -> None:
    same = np.arange(12, dtype=np.float32).reshape(3, 4)
    arrays = {"one": same, "two": same, "w": ARRAYS["w"]}
    made = Made(os.environ[drivers.SIMULATED], arrays)
    with listening(path, granting(made, 7)):
        with trims.open("m", place="gpu:0") as model:
            copied = model.numpy()
            assert all(copied[n].tobytes() == a.tobytes() and copied[n].shape == a.shape for n, a in arrays.items())
            assert not any(array.flags.writeable for array in copied.values())
            assert model.memory().copied == made.span
            del copied
            assert model.memory().copied == 0
            own = model.numpy(writable=True)
            own["one"][:] = 0
            assert (own["two"] == same).all() and (model["one"].get() == same).all()
        connections.close_idle()
    made.close()


def test_what_needs_host_memory_refuses_in_one_line(path: Path, made: Made) -> None:
    from trims.integrations import dlpack, safetensors

    with listening(path, granting(made, 7)):
        with trims.open("m", place="gpu:0") as model:
            with pytest.raises(UsageError, match=f"opened on {made.place}"):
                safetensors.safe_open(model, "np")
            assert dlpack.tensors(model)["w"].__dlpack_device__() == (2, 0)
        connections.close_idle()


@capabilities.needs_onnxruntime
def test_onnxruntime_without_cuda_has_weights_of_its_own(path: Path) -> None:
    from trims.integrations.onnxruntime import NotSharedWarning

    made, expected = onnx_model()
    with listening(path, granting(made, 7)):
        with trims.open("m", place="gpu:0") as model:
            with pytest.warns(NotSharedWarning, match="no CUDAExecutionProvider .pip install onnxruntime-gpu"):
                session = model.onnxruntime()
            with pytest.warns(UserWarning) as warned:  # ONNX Runtime's own among them
                other = model.onnxruntime(
                    providers=[("CUDAExecutionProvider", {"device_id": 0}), "CPUExecutionProvider"]
                )
            assert any("no CUDAExecutionProvider" in str(w.message) for w in warned)
        for made_session in (session, other):
            assert np.allclose(made_session.run(None, {"x": np.ones((1, 64), np.float32)})[0], expected)
        connections.close_idle()
    made.close()


@capabilities.needs_onnxruntime
def test_onnxruntime_with_cuda_has_weights_of_its_own_where_another_provider_comes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from trims.integrations import ort_device

    monkeypatch.setattr(ort_device.ort, "get_available_providers", lambda: [ort_device.CUDA, "CPUExecutionProvider"])
    assert ort_device.obstacle(0, [ort_device.CUDA, "CPUExecutionProvider"], [{}, {}]) == ""
    assert "first provider is CPUExecutionProvider" in ort_device.obstacle(0, ["CPUExecutionProvider"], None)
    assert "first provider is TensorrtExecutionProvider" in ort_device.obstacle(
        0, [("TensorrtExecutionProvider", {}), ort_device.CUDA], None
    )


@capabilities.needs_onnxruntime
def test_onnxruntime_uses_what_it_is_given_in_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With capsules that say CPU, which simulated memory is: all but the provider is as on a GPU."""
    import onnxruntime as ort

    from trims.integrations import ort_device, ort_options

    monkeypatch.setattr(capsules, "CUDA", 1)
    made, expected = onnx_model()
    inputs = {"x": np.ones((1, 64), np.float32)}

    def make(graph: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        return ort.InferenceSession(graph, options, ["CPUExecutionProvider"], enable_fallback=0)

    def packing(graph: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
        options.add_session_config_entry(ort_options.DISABLE_PREPACKING, "0")
        return make(graph, options)

    with listening(path, granting(made, 7)):
        model = trims.open("m", place="gpu:0")
        region = model.region()
        assert region.on_gpu
        graphs: list[bytes] = []
        session = ort_device.session(region, ort_options.Wanted(None), lambda g, o: graphs.append(g) or make(g, o))
        assert np.allclose(session.run(None, inputs)[0], expected)
        assert len(graphs[0]) < 8 << 10  # the large tensor is not in the graph; shapes and small ones are
        with pytest.raises(ort_device.NotUsed, match="wants 'w' elsewhere"):
            ort_device.session(region, ort_options.Wanted(None), packing)
        with pytest.raises(ort_options.ERRORS):
            session.set_providers(["CPUExecutionProvider"])
        kept = ort_device.session(region, ort_options.Wanted(None), make)
        del region, session
        model.close()
        gc.collect()
        assert model.in_use
        assert np.allclose(kept.run(None, inputs)[0], expected)
        del kept
        gc.collect()
        assert not model.in_use
        connections.close_idle()
    made.close()


def onnx_model() -> tuple[Made, np.ndarray[Any, Any]]:
    """y = reshape(x @ w + b, s) with its weights outside of the graph, and y of ones."""
    from onnx import TensorProto, helper

    from trims.location import LOCATION

    rng = np.random.default_rng(1)
    arrays = {
        "w": rng.standard_normal((64, 64), np.float32), "b": rng.standard_normal(64, np.float32),
        "s": np.array([8, 8], np.int64),
    }  # fmt: skip
    offsets, at = {}, 0
    for name, array in arrays.items():
        offsets[name] = at
        at += -(-array.nbytes // 512) * 512
    initializers = []
    for name, array in arrays.items():
        tensor = TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
        for key, value in (("location", LOCATION), ("offset", offsets[name]), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        initializers.append(tensor)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["z"]),
        helper.make_node("Reshape", ["z", "s"], ["y"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [8, 8])
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made = Made(os.environ[drivers.SIMULATED], arrays, model.SerializeToString())
    assert made.manifest.layout.tensors == offsets
    return made, (np.ones((1, 64), np.float32) @ arrays["w"] + arrays["b"]).reshape(8, 8)


@pytest.mark.torch
@capabilities.needs_torch
def test_torch_without_cuda_says_so(path: Path, made: Made) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this torch has CUDA")
    with listening(path, granting(made, 7)):
        with trims.open("m", place="gpu:0") as model:
            with pytest.raises(DeviceLost, match="torch cannot use GPU 0"):
                model.torch()
        connections.close_idle()


@pytest.mark.torch
@capabilities.needs_torch
def test_torch_takes_the_memory_as_it_is(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With capsules that say CPU, which simulated memory is."""
    import ml_dtypes
    import torch

    from trims.integrations.torch import load_into
    from trims.manifest import ITEM_SIZES

    monkeypatch.setattr(capsules, "CUDA", 1)
    arrays = {
        name: np.arange(6).reshape(2, 3).astype(getattr(ml_dtypes, name, None) or name)
        for name in ITEM_SIZES
        if hasattr(torch, name)
    }
    arrays |= {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 3), np.float16)}
    linear = {"weight": np.ones((2, 3), np.float32), "bias": np.ones(2, np.float32)}
    made, other = Made(os.environ[drivers.SIMULATED], arrays), Made(os.environ[drivers.SIMULATED], linear)

    with listening(path, granting_each({1: made, 2: other})):
        with trims.open("m", place="gpu:0") as model:
            for name, tensor in model.torch().items():
                assert (
                    tensor.dtype == getattr(torch, arrays[name].dtype.name)
                    and tuple(tensor.shape) == arrays[name].shape
                )
                assert not tensor.numel() or tensor.data_ptr() == model[name].address
                assert tensor.reshape(-1).view(torch.uint8).numpy().tobytes() == arrays[name].tobytes()
                assert tensor.untyped_storage().nbytes() == arrays[name].nbytes
            del tensor
            assert torch.equal(torch.from_dlpack(model["float32"]), torch.from_numpy(arrays["float32"]))
        with trims.open("n", place="gpu:0") as model:
            with torch.device("meta"):
                module = torch.nn.Linear(3, 2)
            load_into(module, model)
            assert module.weight.data_ptr() == model["weight"].address
            assert module(torch.ones(3)).tolist() == [4.0, 4.0]
        del module, model
        gc.collect()
        connections.close_idle()
    made.close()
    other.close()
