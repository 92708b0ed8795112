"""What tests of importers and exporters share: a source read whole, and a region made of it for ONNX Runtime."""

from __future__ import annotations

import random
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trims.disk.importers import open_source
from trims.disk.importers.base import Source
from trims.errors import BadInput
from trims.manifest import ITEM_SIZES, align

Loaded = dict[str, tuple[str, tuple[int, ...], bytes]]


def contents(source: Source) -> Loaded:
    """Every tensor of a source: (dtype, shape, bytes) by name; each is as long as its shape says."""
    found = {}
    for tensor in source.tensors:
        data = bytes(tensor.read())
        assert len(data) == prod(tensor.shape) * ITEM_SIZES[tensor.dtype]
        found[tensor.name] = (tensor.dtype, tensor.shape, data)
    return found


def load(path: Path | str, format: str = "auto") -> Loaded:
    with open_source(str(path), format) as source:
        return contents(source)


def expected(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Loaded:
    """What importing these arrays must give."""
    return {
        name: (a.dtype.name, a.shape, np.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).tobytes())
        for name, a in arrays.items()
    }


def refused(path: Path | str, *words: str, format: str = "auto") -> BadInput:
    """The BadInput with which importing `path` fails: one line that has these words and names the file."""
    with pytest.raises(BadInput) as caught:
        load(path, format)
    line = str(caught.value)
    assert caught.value.exit_code == 16
    assert "\n" not in line and len(line) < 2000
    assert Path(path).name in line
    for word in words:
        assert word in line, line
    return caught.value


def survives(path: Path, format: str = "auto") -> None:
    """Importing `path` gives tensors that can be read in full, or BadInput; nothing else."""
    try:
        with open_source(str(path), format) as source:
            contents(source)
            if source.graph is not None:
                source.graph({tensor.name: 0 for tensor in source.tensors})
    except BadInput as error:
        assert "\n" not in str(error)


def mutate(data: bytes, seed: int) -> bytes:
    """`data`, cut, patched or with a piece doubled; mostly near its ends, where formats keep their headers."""
    rng = random.Random(seed)
    out = bytearray(data)
    head = min(len(out), 4096)
    how = rng.randrange(6)
    if how == 0:
        del out[rng.randrange(len(out)) :]
    elif how == 1:
        for _ in range(rng.randrange(1, 4)):
            out[rng.randrange(len(out))] = rng.randrange(256)
    elif how == 2:
        for _ in range(rng.randrange(1, 6)):
            out[rng.randrange(head)] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif how == 3:
        for _ in range(rng.randrange(1, 4)):
            out[-1 - rng.randrange(min(len(out), 2048))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
    elif how == 4:
        at = rng.randrange(len(out))
        out[at:at] = out[at : at + rng.randrange(64)]
    else:
        at = rng.randrange(head)
        out[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"\xff" * 7 + b"\x7f"])
    return bytes(out)


def region(source: Source) -> tuple[bytes, np.ndarray[Any, Any]]:
    """(graph, buffer): the tensors of an ONNX source as they would lie in a region, and the graph that points there."""
    assert source.graph is not None
    offsets, at = {}, 0
    for tensor in source.tensors:
        offsets[tensor.name] = at
        at = align(at + len(tensor.read()))
    buffer = np.zeros(at + 64, np.uint8)
    for tensor in source.tensors:
        data = np.frombuffer(tensor.read(), np.uint8)
        buffer[offsets[tensor.name] : offsets[tensor.name] + len(data)] = data
    return source.graph(offsets), buffer


def session_over(graph: bytes, buffer: np.ndarray[Any, Any]) -> Any:
    """A session of `graph` that uses the weights in `buffer` where they are."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.use_external_initializer_file_buffers_directly", "1")
    options.add_external_initializers_from_files_in_memory(["trims"], [memoryview(buffer)], [len(buffer)])
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def plain_session(model: str | bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def outputs(session: Any, feeds: Mapping[str, np.ndarray[Any, Any]]) -> list[bytes]:
    return [np.asarray(value).tobytes() for value in session.run(None, dict(feeds))]
