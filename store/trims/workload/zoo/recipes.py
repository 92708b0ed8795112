"""What a model of the paper becomes as a file. The first that applies:

its graph, as ONNX with random weights    where one is known: at scale 1 the onnx package's light ones, and with
                                          architectures=True all others
its true tensors, as safetensors          a large model at scale 1
synthetic tensors, as safetensors         everything else, and whatever lacks its library
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trims.linux import atomic
from trims.workload.zoo import plain, synthetic
from trims.workload.zoo.files import Entry
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.table import ZooModel, chain_of

SYNTHETIC = "synthetic"
TENSORS = "true tensors, no graph"

Step = Callable[[int], None]
"""Called with the bytes written since the last call."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one file is made. source: what from, in words; fill: writes it, returns its manifest entry."""

    model: ZooModel
    file: str
    source: str
    fill: Callable[[int, Step], Entry]


def choose(model: ZooModel, seed: int, scale: float, architectures: bool, weights_only: bool) -> Recipe:
    """The recipe for `model` under these wishes."""
    stem = f"{model.spec.name}.x{scale:g}.seed{seed}"
    if not weights_only and _has_graph(model, scale, architectures):
        return Recipe(model, f"{stem}.onnx", model.architecture, lambda fd, step: _graph(fd, step, model, seed, scale))
    chain = chain_of(model.spec.name) if model.spec.family == "large" and scale == 1.0 else None
    source = TENSORS if chain else SYNTHETIC
    return Recipe(model, f"{stem}.safetensors", source, lambda fd, step: _tensors(fd, step, model, seed, scale, chain))


def _has_graph(model: ZooModel, scale: float, architectures: bool) -> bool:
    """Whether a graph can be made here and now."""
    library, _, _ = model.architecture.partition(" ")
    if model.spec.family == "large" or not library:
        return False
    return library == "onnx" and scale == 1.0


def _tensors(fd: int, step: Step, model: ZooModel, seed: int, scale: float, chain: plain.Chain | None) -> Entry:
    spec = model.spec
    named = plain.shapes(chain) if chain else synthetic.profile(spec.name, spec.tensors, spec.nbytes, seed)
    source = TENSORS if chain else SYNTHETIC
    metadata = {"model": spec.name, "source": source, "synthetic": str(chain is None).lower(), "seed": str(seed)}
    synthetic.write(fd, named, metadata, Noise(seed, spec.name), step)
    nbytes = 4 * sum(math.prod(shape) for _, shape in named)
    return _entry(model, source, seed, scale, tensors=len(named), nbytes=nbytes, runs="weights")


def _graph(fd: int, step: Step, model: ZooModel, seed: int, scale: float) -> Entry:
    from trims.workload.zoo import graphs  # onnx takes 0.2 s to import, and most builds find their files there

    proto = graphs.graph(model, seed, scale)
    graphs.mark(
        proto, {"model": model.spec.name, "source": model.architecture, "synthetic": "false", "seed": str(seed)}
    )
    tensors, nbytes = graphs.weights(proto)
    data = proto.SerializeToString(deterministic=True)
    atomic.write_all(fd, data)
    step(len(data))
    return _entry(model, model.architecture, seed, scale, tensors=tensors, nbytes=nbytes, runs="onnxruntime")


def _entry(model: ZooModel, source: str, seed: int, scale: float, *, tensors: int, nbytes: int, runs: str) -> Entry:
    return {
        "name": model.spec.name,
        "id": model.id,
        "family": model.spec.family,
        "source": source,
        "synthetic": source == SYNTHETIC,
        "runs": runs,
        "tensors": tensors,
        "bytes": nbytes,
        "paper_mib": model.paper_mib,
        "seed": seed,
        "scale": scale,
    }
