"""Small real model files of every importable format, made from a seed.

Weights are small enough to be quick and large enough to matter: the CNN has initializers on both sides of the 1 KiB
below which a graph keeps its weights inline, a tied pair, and a shape tensor that must stay in the graph.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Arrays = dict[str, np.ndarray[Any, Any]]
SAFETENSORS_NAMES = {
    "bool": "BOOL", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64",
    "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "float16": "F16", "float32": "F32", "float64": "F64", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def arrays(seed: int = 0, width: int = 64) -> Arrays:
    """A few tensors as a small network has them: float32 and float16 matrices, a scalar, an empty and an odd one."""
    rng = np.random.default_rng(seed)
    return {
        "embed.weight": rng.standard_normal((width, 32)).astype(np.float32),
        "layer.0/w": rng.standard_normal((width, width)).astype(np.float16),
        "layer.0/b": rng.standard_normal(width).astype(np.float32),
        "counts": rng.integers(-9, 9, (3, 5, 7)),
        "scale": np.array(0.5, np.float32),
        "nothing": np.zeros((0, 4), np.float32),
    }


def every_dtype(seed: int = 0) -> Arrays:
    """One small tensor of each dtype that safetensors can hold."""
    rng = np.random.default_rng(seed)
    made: Arrays = {}
    for name in SAFETENSORS_NAMES:
        dtype = np.dtype(getattr(ml_dtypes, name, None) or name)
        raw = rng.integers(0, 2 if name == "bool" else 100, 6 * dtype.itemsize, dtype=np.uint8)
        made[f"t.{name}"] = raw.view(dtype).reshape(2, 3)
    return made


def write_safetensors(path: Path, tensors: Arrays, metadata: dict[str, str] | None = None) -> Path:
    """Write the format by hand, so that tests of its reader do not lean on another reader's writer."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at, data = 0, b""
    for name, array in tensors.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[name] = {
            "dtype": SAFETENSORS_NAMES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + len(raw)],
        }
        at, data = at + len(raw), data + raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_sharded(directory: Path, tensors: Arrays, shards: int = 2) -> Path:
    """A directory as hubs have it: shards, their index, and side files."""
    directory.mkdir()
    names = list(tensors)
    weight_map = {}
    for n in range(shards):
        file = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[n::shards]}
        write_safetensors(directory / file, part)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(a.nbytes for a in tensors.values())}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    (directory / "config.json").write_text('{"model_type": "small"}')
    return directory


def cnn(seed: int = 0, classes: int = 10, hidden: int = 64) -> Any:
    """An ONNX classifier of 1x3x16x16 images: two convolutions, two tied matrices, one Gemm. Input `x`, output `y`."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)

    def weight(name: str, *shape: int) -> Any:
        fan = int(np.prod(shape[1:])) or 1
        return numpy_helper.from_array((rng.standard_normal(shape) / np.sqrt(fan)).astype(np.float32), name)

    tied = numpy_helper.to_array(weight("tied", hidden, hidden))
    initializers = [
        weight("conv1.weight", 16, 3, 3, 3), weight("conv1.bias", 16),
        weight("conv2.weight", 32, 16, 3, 3), weight("conv2.bias", 32),
        numpy_helper.from_array(np.array([1, -1], np.int64), "flat"),
        weight("reduce", 32 * 4 * 4, hidden),
        numpy_helper.from_array(tied, "mix.a"), numpy_helper.from_array(tied, "mix.b"),
        weight("head.weight", classes, hidden), weight("head.bias", classes),
    ]  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "conv1.weight", "conv1.bias"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "conv2.weight", "conv2.bias"], ["c2"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c2"], ["r2"]),
        node("Reshape", ["r2", "flat"], ["f"]),
        node("MatMul", ["f", "reduce"], ["h0"]),
        node("MatMul", ["h0", "mix.a"], ["h1"]),
        node("Relu", ["h1"], ["h2"]),
        node("MatMul", ["h2", "mix.b"], ["h3"]),
        node("Gemm", ["h3", "head.weight", "head.bias"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, classes])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="tests")


def cnn_input(seed: int = 1) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((1, 3, 16, 16)).astype(np.float32)


class ModelFiles:
    """Paths of model files below one directory, each made when first asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @functools.cached_property
    def onnx(self) -> Path:
        """The CNN with its weights inside."""
        path = self.directory / "cnn.onnx"
        path.write_bytes(cnn().SerializeToString())
        return path

    @functools.cached_property
    def onnx_external(self) -> Path:
        """The same CNN with its larger weights in a second file."""
        import onnx

        directory = self.directory / "external"
        directory.mkdir()
        path = directory / "cnn.onnx"
        onnx.save_model(
            cnn(),
            str(path),
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location="cnn.bin",
            size_threshold=1024,
        )
        return path

    @functools.cached_property
    def safetensors(self) -> Path:
        """`arrays()` in one file."""
        return write_safetensors(self.directory / "net.safetensors", arrays(), {"format": "np"})

    @functools.cached_property
    def dtypes(self) -> Path:
        """`every_dtype()` in one safetensors file."""
        return write_safetensors(self.directory / "dtypes.safetensors", every_dtype())

    @functools.cached_property
    def sharded(self) -> Path:
        """`arrays()` in a directory of two shards with an index and a config.json."""
        return write_sharded(self.directory / "sharded", arrays())

    @functools.cached_property
    def npz(self) -> Path:
        path = self.directory / "net.npz"
        np.savez(path, **{name.replace("/", "."): array for name, array in arrays().items()})
        return path

    @functools.cached_property
    def npy(self) -> Path:
        path = self.directory / "table.npy"
        np.save(path, arrays()["embed.weight"])
        return path

    @functools.cached_property
    def h5(self) -> Path:
        import h5py

        path = self.directory / "net.h5"
        with h5py.File(path, "w") as file:
            for name, array in arrays().items():
                file.create_dataset(name, data=array)
        return path

    @functools.cached_property
    def torch(self) -> Path:
        """A state dict with a tied pair and a strided view; needs PyTorch."""
        import torch

        path = self.directory / "net.pt"
        state = {name: torch.from_numpy(array.copy()) for name, array in arrays().items()}
        state["tied"] = state["embed.weight"]
        state["columns"] = state["embed.weight"].t()
        torch.save(state, path)
        return path
