"""Clients on a real GPU: the host's bits in every framework that is installed, for reading only, and clean ends.

Each look at the GPU is made by a process of its own: what it leaves open is the driver's business, and one that writes
to the weights loses its context.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from helpers import capabilities, sources

from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.manifest import ITEM_SIZES, STORAGE

pytestmark = [pytest.mark.gpu, capabilities.needs_gpu, pytest.mark.timeout(300)]

SKIP = 77  # exit status of a process that lacks what it is about; its last line says what
START = """
import atexit, gc, os, sys, warnings
import numpy as np
import trims
from trims.client import gpus
def skip(why):
    print(why); sys.stdout.flush(); os._exit(77)
def need(name):
    try:
        return __import__(name)
    except ImportError:
        skip(f"{name} is not installed")
def same(name, array):
    array = np.asarray(array)
    assert array.tobytes() == host[name].tobytes() and array.shape == host[name].shape, name
host = trims.open("m", place="host")
model = trims.open("m", place="gpu:0")
driver, gpu = gpus.seen(model.place)
"""


@pytest.fixture
def run(managers: Callable[..., Any]) -> Callable[[str], str]:
    """Run code with the model `m` open on the host and on the first GPU; returns what it prints, or skips."""
    manager = managers()
    store = open_store(str(manager.runtime.store))
    import_model(store, every_dtype(), "m")
    plain = {"large": sources.numbers(1, 5, 1 << 20), "half": sources.numbers(2, 9, dtype="float16"), "i": np.arange(5)}
    import_model(store, sources.source({**plain, "empty": np.zeros((0, 3), np.float32)}), "plain")

    def run(code: str) -> str:
        command = [sys.executable, "-X", "faulthandler", "-c", START + code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        if done.returncode == SKIP:
            pytest.skip(done.stdout.strip().rpartition("\n")[2])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def every_dtype() -> sources.CodeSource:
    """A tensor of every dtype, named for it; a scalar, an empty one, and one over the 2 MiB units of GPU memory."""
    rng = np.random.default_rng(0)
    tensors = []
    for name, size in ITEM_SIZES.items():
        raw = rng.integers(0, 2 if name == "bool" else 60, 6 * size, dtype=np.uint8)
        tensors.append(sources.tensor(name, raw.view(STORAGE.get(name, name)).reshape(2, 3), name))
    tensors.append(sources.tensor("large", sources.numbers(1, 5, 1 << 20)))
    tensors.append(sources.tensor("scalar", np.array(2.5, np.float32)))
    tensors.append(sources.tensor("empty", np.zeros((0, 3), np.int8)))
    return sources.CodeSource(tensors, files={"labels.txt": b"cat\n"})


def test_every_tensor_has_the_hosts_bits(run: Callable[[str], str]) -> None:
    run("""
for name, view in model.tensors().items():
    same(name, view.get())
for name, array in model.numpy().items():
    same(name, array)
assert dict(model.files) == dict(host.files) and model.manifest == host.manifest
region = model.region()
assert region.mapped.context_seconds > 0 and region.mapped.attach_seconds > 0
assert model.memory().shared == region.mapped.nbytes
""")


def test_the_driver_gives_read_access_alone(run: Callable[[str], str]) -> None:
    run("""
assert driver.access(model["large"].address, gpu.ordinal) == "read"
assert driver.access(model.region().mapped.address, gpu.ordinal) == "read"
""")


def test_a_write_fails_and_hurts_nobody_else(run: Callable[[str], str]) -> None:
    run("""
from trims.errors import TrimsError
view = model["large"]
zeros = np.zeros(view.size, np.float32)
stream = driver.stream(gpu.ordinal)
try:
    driver.copy_in(gpu.ordinal, view.address, zeros.ctypes.data, zeros.nbytes, stream)
    driver.wait(gpu.ordinal, stream)
except TrimsError as error:
    print(error); sys.stdout.flush(); os._exit(0)
os._exit(1)
""")
    run("same('large', model['large'].get())")


def test_a_view_keeps_the_memory_and_two_opens_end_apart(run: Callable[[str], str]) -> None:
    run("""
other = trims.open("m", place=model.place)
view = other["large"]
other.close(); model.close(); gc.collect()
assert other.in_use and not model.in_use
same("large", view.get())
del view
assert not other.in_use
again = trims.open("m", place="gpu")
same("large", again["large"].get())
""")


def test_the_memory_comes_back(run: Callable[[str], str]) -> None:
    run("""
kept = trims.open("m", place="gpu:0")  # so that the context stays, and is not what is counted
before = driver.usage(gpu.uuid).used
for _ in range(50):
    trims.open("m", place="gpu:0").close()
assert driver.usage(gpu.uuid).used <= before + (16 << 20)
same("large", kept["large"].get())
""")


def test_a_forked_child_has_the_files_alone(run: Callable[[str], str]) -> None:
    run("""
from trims.errors import DeviceLost
view = model["large"]
pid = os.fork()
if not pid:
    status = 1
    try:
        assert dict(model.files) == {"labels.txt": b"cat\\n"}
        for use in (view.get, model.tensors, model.numpy):
            try:
                use()
                os._exit(2)
            except DeviceLost:
                pass
        model.close()
        del view
        gc.collect()
        status = 0
    finally:
        os._exit(status)
assert os.waitpid(pid, 0)[1] == 0
same("large", view.get())
""")


@pytest.mark.parametrize(
    "code",
    [
        "view = model['large']",
        "sys.keep = model['large'].__dlpack__()",
        "atexit.register(lambda view: view.get(), model['large'])",
        "cycle = [model['large']]; cycle.append(cycle); del model",
    ],
)
def test_a_process_may_end_with_open_models(run: Callable[[str], str], code: str) -> None:
    assert run(code) == ""


def test_cupy_has_the_same_memory(run: Callable[[str], str]) -> None:
    run("""
cupy = need("cupy")
host, model = trims.open("plain", place="host"), trims.open("plain", place="gpu:0")
for name, array in model.cupy().items():
    same(name, array.get())
    assert not array.size or array.data.ptr == model[name].address, name
array = cupy.asarray(model["large"])
assert array.data.ptr == model["large"].address
total = float(array.astype(cupy.float64).sum())
assert abs(total - host["large"].astype(np.float64).sum()) < 1e-3
del array
kept = model.cupy()["large"]
model.close(); gc.collect()
assert model.in_use
same("large", kept.get())
""")


def test_torch_has_the_same_memory(run: Callable[[str], str]) -> None:
    run("""
torch = need("torch")
if not torch.cuda.is_available():
    skip("this torch has no CUDA")
for name, tensor in model.torch().items():
    assert tensor.is_cuda and tuple(tensor.shape) == host[name].shape
    assert not tensor.numel() or tensor.data_ptr() == model[name].address, name
    assert tensor.reshape(-1).view(torch.uint8).cpu().numpy().tobytes() == host[name].tobytes(), name
taken = torch.from_dlpack(model["large"])
assert taken.data_ptr() == model["large"].address
kept = model.torch()["large"]
del tensor, taken
model.close(); gc.collect()
assert model.in_use
same("large", kept.cpu().numpy())
x = torch.ones(1 << 20, device="cuda:0")
assert torch.allclose((kept @ x).cpu(), torch.from_numpy(host["large"].copy()) @ torch.ones(1 << 20), atol=1e-2)
del kept
assert not model.in_use
assert trims.open("m", place="gpu").place == gpus.own("gpu:0")
""")


def test_jax_has_the_same_memory(run: Callable[[str], str]) -> None:
    run("""
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
jax = need("jax")
try:
    jax.local_devices(backend="cuda")
except RuntimeError:
    skip("this JAX has no CUDA")
for name, array in model.jax().items():
    assert next(iter(array.devices())).platform == "gpu", name
    if array.dtype == host[name].dtype:
        same(name, array)
assert model.jax()["large"].unsafe_buffer_pointer() == model["large"].address
""")


def test_onnxruntime_uses_the_weights_in_place(
    run: Callable[[str], str], models: Any, managers: Callable[..., Any], runtime: Any
) -> None:
    from trims.disk.importers import open_source

    with open_source(str(models.onnx)) as source:
        import_model(open_store(str(runtime.store)), source, "net")
    print(
        run("""
ort = need("onnxruntime")
if "CUDAExecutionProvider" not in ort.get_available_providers():
    skip("this onnxruntime has no CUDA")
from trims.integrations import ort_inputs
from trims.integrations.onnxruntime import NotSharedWarning
warnings.simplefilter("error", NotSharedWarning)
net, plain = trims.open("net", place="gpu:0"), trims.open("net", place="host")
session = net.onnxruntime()
assert session.get_providers()[0] == "CUDAExecutionProvider"
native = plain.onnxruntime(providers=["CPUExecutionProvider"])
inputs, _ = ort_inputs.first_run(native)
for ours, theirs in zip(session.run(None, inputs), native.run(None, inputs)):
    assert np.allclose(ours, theirs, rtol=1e-2, atol=1e-3)
net.close(); gc.collect()
assert net.in_use
session.run(None, inputs)
del session; gc.collect()
assert not net.in_use
""")
    )
