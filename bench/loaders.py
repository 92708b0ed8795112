"""How a worker loads a model: one function a mode, each returning a function that runs the model and gives its output.

A mode is `framework/way`. Whatever must stay alive hangs on the returned function.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

Run = Callable[[], bytes]

PARTS: dict[str, float] = {}
"""Seconds of parts of the last load: `attach` is trims.open."""


def prepare(spec: dict[str, Any]) -> None:
    """Import what the mode's program would have imported before it loads a model."""
    import numpy  # noqa: F401

    if spec["mode"].startswith("torch/"):
        import torch

        torch.set_num_threads(spec["threads"])
    else:
        import onnxruntime

        onnxruntime.set_default_logger_severity(3)
    if spec["imported"] and "trims" in spec["mode"]:
        import trims.client.handle
        import trims.client.session

        if spec["mode"].startswith("torch/"):
            import trims.integrations.torch
        else:
            import trims.integrations.onnxruntime
            import trims.integrations.ort_key  # noqa: F401


def load(spec: dict[str, Any]) -> Run:
    return WAYS[spec["mode"]](spec)


def nothing(spec: dict[str, Any]) -> Run:
    return lambda: b""


# ---- ONNX Runtime


def _options(spec: dict[str, Any]) -> Any:
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = spec["threads"]
    made.log_severity_level = 3
    return made


def _runner(spec: dict[str, Any], session: Any, *held: object) -> Run:
    inputs = feeds(session, spec["shapes"], spec["values"])

    def run(held: object = held) -> bytes:
        return b"".join(output.tobytes() for output in session.run(None, inputs))

    return run


def feeds(session: Any, shapes: dict[str, list[int]], values: dict[str, float]) -> dict[str, Any]:
    """The same random inputs in every process, from the shapes that the graph names; unnamed dimensions are 1."""
    import numpy as np

    rng = np.random.default_rng(0)
    made = {}
    for arg in session.get_inputs():
        shape = shapes.get(arg.name) or [n if isinstance(n, int) else 1 for n in arg.shape]
        dtype = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}[arg.type]
        if arg.name in values:
            made[arg.name] = np.full(arg.shape, values[arg.name], dtype)
        elif np.issubdtype(dtype, np.integer):
            made[arg.name] = rng.integers(0, 256, shape).astype(dtype)
        else:
            made[arg.name] = rng.standard_normal(shape).astype(np.float32)
    return made


def ort_native(spec: dict[str, Any]) -> Run:
    import onnxruntime

    return _runner(spec, onnxruntime.InferenceSession(spec["model"], _options(spec)))


def ort_derived(spec: dict[str, Any]) -> Run:
    """The optimised graph and weights as ordinary files in a hot page cache: what trims derives, without trims."""
    import onnxruntime

    options = _options(spec)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if spec["share"] == "max":
        options.add_session_config_entry("session.disable_prepacking", "1")
    return _runner(spec, onnxruntime.InferenceSession(spec["model"], options))


def opened(spec: dict[str, Any]) -> Any:
    import trims

    begun = time.monotonic()
    model = trims.open(spec["model"], place="host", timeout=120)
    PARTS["attach"] = time.monotonic() - begun
    return model


def ort_trims(spec: dict[str, Any]) -> Run:
    model = opened(spec)
    return _runner(spec, model.onnxruntime(share=spec["share"], sess_options=_options(spec)), model)


# ---- PyTorch


def network() -> Any:
    """Six blocks of a transformer's matrices, 768 wide: the weights of a ViT-B/16 cut to six layers."""
    from torch import nn

    def block() -> Any:
        return nn.ModuleDict(
            {
                "norm1": nn.LayerNorm(768),
                "qkv": nn.Linear(768, 2304),
                "out": nn.Linear(2304, 768),
                "norm2": nn.LayerNorm(768),
                "fc1": nn.Linear(768, 3072),
                "fc2": nn.Linear(3072, 768),
            }
        )

    return nn.ModuleList(block() for _ in range(6))


def _module_runner(module: Any, *held: object) -> Run:
    import torch

    x = torch.ones(1, 8, 768)

    def run(held: object = held) -> bytes:
        y = x
        with torch.inference_mode():
            for block in module:
                y = y + block["out"](block["qkv"](block["norm1"](y)))
                y = y + block["fc2"](torch.relu(block["fc1"](block["norm2"](y))))
        return bytes(y.numpy().tobytes())

    return run


def _on_meta(state: Callable[[], dict[str, Any]], *held: object) -> Run:
    import torch

    with torch.device("meta"):
        module = network()
    module.load_state_dict(state(), assign=True)
    return _module_runner(module, *held)


def torch_load(spec: dict[str, Any]) -> Run:
    import torch

    module = network()
    module.load_state_dict(torch.load(spec["model"], weights_only=True))
    return _module_runner(module)


def torch_mmap(spec: dict[str, Any]) -> Run:
    import torch

    return _on_meta(lambda: torch.load(spec["model"], weights_only=True, mmap=True))


def torch_safetensors(spec: dict[str, Any]) -> Run:
    from safetensors.torch import load_file

    return _on_meta(lambda: load_file(spec["model"]))


def torch_trims(spec: dict[str, Any]) -> Run:
    model = opened(spec)
    return _on_meta(model.torch, model)


WAYS: dict[str, Callable[[dict[str, Any]], Run]] = {
    "ort/floor": nothing, "ort/native": ort_native, "ort/derived": ort_derived, "ort/trims": ort_trims,
    "torch/floor": nothing, "torch/load": torch_load, "torch/mmap": torch_mmap,
    "torch/safetensors": torch_safetensors, "torch/trims": torch_trims,
}  # fmt: skip
