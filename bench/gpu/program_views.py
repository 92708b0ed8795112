"""What frameworks make of memory that is mapped for reading: whether they copy it, and whether its end is heard of.

For peers, as bench.gpu.programs.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import weakref
from typing import Any

import numpy as np

from bench.gpu.programs import on_gpu
from trims.client import capsules
from trims.devices.driver import Driver

_kept: list[Any] = []  # what has to live as long as the process


class _Owner:
    """What a view is told to keep."""

    __slots__ = ("__weakref__",)


def torch_view(driver: Driver, address: int, nbytes: int) -> dict[str, Any]:
    """A torch tensor over the memory: its address, what torch allocated, its sum, and whether its end is heard of."""
    torch = on_gpu(driver, "torch")
    if torch is None or not torch.cuda.is_available():
        return {"skipped": "needs PyTorch with CUDA"}
    torch.cuda.init()
    owner, before = _Owner(), torch.cuda.memory_allocated()
    tensor = torch.from_dlpack(capsules.of_memory(address, (nbytes,), np.dtype(np.uint8), (2, 0), owner, False))
    allocated = torch.cuda.memory_allocated() - before
    found = {
        "same_address": tensor.data_ptr() == address, "allocated": allocated,
        "sum": int(tensor.view(torch.int64).sum()) % (1 << 64), "version": torch.__version__,
    }  # fmt: skip
    watch = weakref.ref(owner)
    del owner
    gc.collect()
    kept = watch() is not None
    del tensor
    gc.collect()
    return found | {"kept_while_used": kept, "end_heard": watch() is None}


def cupy_view(driver: Driver, address: int, nbytes: int) -> dict[str, Any]:
    """The same of a CuPy array, made as trims makes it."""
    cupy = on_gpu(driver, "cupy")
    if cupy is None:
        return {"skipped": "needs CuPy"}
    owner, pool = _Owner(), cupy.get_default_memory_pool()
    before = pool.used_bytes()
    memory = cupy.cuda.UnownedMemory(address, nbytes, owner, 0)
    array = cupy.ndarray((nbytes // 8,), cupy.uint64, cupy.cuda.MemoryPointer(memory, 0))
    found = {"same_address": array.data.ptr == address, "allocated": pool.used_bytes() - before}
    found |= {"sum": int(array.sum().get()), "version": cupy.__version__}
    watch = weakref.ref(owner)
    del owner, memory
    gc.collect()
    kept = watch() is not None
    del array
    gc.collect()
    return found | {"kept_while_used": kept, "end_heard": watch() is None}


def ort_session(driver: Driver, address: int, nbytes: int, uuid: str) -> dict[str, Any]:
    """A session whose one initializer, all 0.5, lies there: what it says of it, and by what the GPU's memory grows.

    The GPU's memory is measured around the session alone: before it another one was made and has run, which brings
    libraries and work space.
    """
    ort, onnx = on_gpu(driver, "onnxruntime"), on_gpu(driver, "onnx")
    if ort is None or "CUDAExecutionProvider" not in ort.get_available_providers():
        return {"skipped": "needs onnxruntime-gpu"}
    side = int((nbytes // 4) ** 0.5) // 64 * 64
    weight = onnx.TensorProto(name="w", data_type=1, dims=[side, side], data_location=1)
    weight.external_data.add(key="location", value="nothing")
    helper = onnx.helper
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    infos = [helper.make_tensor_value_info(name, 1, [1, side]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", [infos[0]], [infos[1]], [weight])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    x = np.ones((1, side), np.float32)
    warm = _session(ort, model, np.zeros((side, side), np.float32), None)
    warm.run(None, {"x": x})
    before = driver.usage(uuid).used
    owner = _Owner()
    value = ort.OrtValue.from_dlpack(
        capsules.of_memory(address, (side, side), np.dtype(np.float32), (2, 0), owner, False)
    )
    watch = weakref.ref(owner)
    del owner
    with _Said() as said:
        session = _session(ort, model, None, value)
        made = driver.usage(uuid).used - before
        result = session.run(None, {"x": x})[0]
    del value
    gc.collect()
    kept = watch() is not None
    found = {"grew": made, "warnings": said.text.count("user supplied initializer"), "version": ort.__version__}
    found |= {"kept_while_used": kept, "right": bool(np.allclose(result, side / 2)), "said": said.text[:500]}
    del session
    gc.collect()
    return found | {"end_heard": watch() is None}


def _session(ort: Any, model: bytes, host: Any, value: Any) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.log_severity_level = 2  # warnings
    # The session reads these bytes as long as it lives. Of a value that is given apart it should read none of them.
    data = host.tobytes() if value is None else bytes(int(np.prod(value.shape())) * 4)
    _kept.append(data)
    options.add_external_initializers_from_files_in_memory(["nothing"], [data], [len(data)])
    if value is not None:
        options.add_initializer("w", value)
    return ort.InferenceSession(model, options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])


class _Said:
    """What is written to standard error meanwhile, by whatever library."""

    text = ""

    def __enter__(self) -> _Said:
        sys.stderr.flush()
        self._file, self._kept = tempfile.TemporaryFile(), os.dup(2)
        os.dup2(self._file.fileno(), 2)
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.flush()
        os.dup2(self._kept, 2)
        os.close(self._kept)
        self._file.seek(0)
        self.text = self._file.read().decode(errors="replace")
        self._file.close()
