"""What a model of the paper becomes as a file. The first that applies:

its graph, as ONNX with random weights    at scale 1 the onnx package's light ones; with architectures=True all that are
                                          written out here, narrowed to the scale, and at scale 1 those of libraries
its true tensors, as safetensors          a large model at scale 1
synthetic tensors, as safetensors         everything else, and whatever lacks its library
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trims.linux import atomic
from trims.workload.zoo import exported, plain, synthetic
from trims.workload.zoo.files import Entry
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.table import LIGHT, ZooModel, chain_of

SYNTHETIC = "synthetic"
TENSORS = "true tensors, no graph"

Step = Callable[[int], None]
"""Called with the bytes written since the last call."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one file is made. source: what from, in words ("onnx light_vgg19", "synthetic").

    The file's name has the source's first word, the scale and the seed, so no two recipes share a file.
    """

    model: ZooModel
    source: str
    seed: int
    scale: float

    @property
    def is_graph(self) -> bool:
        return self.source not in (SYNTHETIC, TENSORS)

    @property
    def file(self) -> str:
        kind, end = self.source.partition(" ")[0], "onnx" if self.is_graph else "safetensors"
        return f"{self.model.spec.name}.{kind}.x{self.scale:g}.seed{self.seed}.{end}"

    def fill(self, fd: int, step: Step) -> Entry:
        """Write the file to an empty descriptor; returns what zoo.json says of it. Raises exported.Unavailable."""
        return _graph(self, fd, step) if self.is_graph else _tensors(self, fd, step)


def choose(model: ZooModel, seed: int, scale: float, architectures: bool, weights_only: bool) -> Recipe:
    """The recipe for `model` under these wishes."""
    source = "" if weights_only or model.spec.family == "large" else _graph_source(model, scale, architectures)
    if not source:
        source = TENSORS if model.spec.family == "large" and scale == 1.0 else SYNTHETIC
    return Recipe(model, source, seed, scale)


def stand_in(recipe: Recipe) -> Recipe:
    """What is built where a library turned out not to work."""
    return Recipe(recipe.model, SYNTHETIC, recipe.seed, recipe.scale)


def _graph_source(model: ZooModel, scale: float, architectures: bool) -> str:
    """Where the graph of a small model comes from, "" for nowhere."""
    if not architectures:
        light = LIGHT.get(model.spec.name)
        return f"onnx {light}" if light and scale == 1.0 else ""
    if model.architecture == "trims":
        return "trims"
    return model.architecture if scale == 1.0 and exported.is_installed(model.architecture) else ""


def _tensors(recipe: Recipe, fd: int, step: Step) -> Entry:
    spec = recipe.model.spec
    chain = chain_of(spec.name) if recipe.source == TENSORS else None
    named = plain.shapes(chain) if chain else synthetic.profile(spec.name, spec.tensors, spec.nbytes, recipe.seed)
    synthetic.write(fd, named, _metadata(recipe), Noise(recipe.seed, spec.name), step)
    return _entry(recipe, tensors=len(named), nbytes=4 * sum(math.prod(shape) for _, shape in named))


def _graph(recipe: Recipe, fd: int, step: Step) -> Entry:
    from trims.workload.zoo import graphs  # onnx takes 0.2 s to import, and most builds find their files there

    proto = graphs.graph(recipe.model, recipe.source, recipe.seed, recipe.scale**0.5)
    graphs.mark(proto, _metadata(recipe))
    tensors, nbytes = graphs.weights(proto)
    data = proto.SerializeToString(deterministic=True)
    atomic.write_all(fd, data)
    step(len(data))
    return _entry(recipe, tensors=tensors, nbytes=nbytes)


def _metadata(recipe: Recipe) -> dict[str, str]:
    """What the file itself says of where it comes from."""
    made_up = str(recipe.source == SYNTHETIC).lower()
    return {"model": recipe.model.spec.name, "source": recipe.source, "synthetic": made_up, "seed": str(recipe.seed)}


def _entry(recipe: Recipe, *, tensors: int, nbytes: int) -> Entry:
    return {
        "name": recipe.model.spec.name,
        "id": recipe.model.id,
        "family": recipe.model.spec.family,
        "source": recipe.source,
        "synthetic": recipe.source == SYNTHETIC,
        "runs": "onnxruntime" if recipe.is_graph else "weights",
        "tensors": tensors,
        "bytes": nbytes,
        "paper_mib": recipe.model.paper_mib,
        "seed": recipe.seed,
        "scale": recipe.scale,
    }
