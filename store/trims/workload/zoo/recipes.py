"""What a model of the paper becomes as a file. The first that applies:

its graph, as ONNX with random weights    with architectures=True any small model, narrowed to the scale;
                                          else at scale 1 those that the onnx package has as light models
its true tensors, as safetensors          a large model at scale 1
synthetic tensors, as safetensors         everything else
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from trims.workload.zoo import plain, synthetic
from trims.workload.zoo.files import Entry
from trims.workload.zoo.noise import Noise
from trims.workload.zoo.output import Output
from trims.workload.zoo.table import LIGHT, ZooModel, chain_of

ARCHITECTURE = "architecture"
NARROWED = "narrowed architecture"
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
        """Write the file to an empty descriptor; returns what zoo.json says of it."""
        return _graph(self, Output(fd, step)) if self.is_graph else _tensors(self, Output(fd, step))


def choose(model: ZooModel, seed: int, scale: float, architectures: bool, weights_only: bool) -> Recipe:
    """The recipe for `model` under these wishes."""
    large = model.spec.family == "large"
    light = LIGHT.get(model.spec.name)
    if architectures and not weights_only and not large:
        source = ARCHITECTURE if scale == 1.0 else NARROWED
    elif light and scale == 1.0 and not weights_only:
        source = f"onnx {light}"
    else:
        source = TENSORS if large and scale == 1.0 else SYNTHETIC
    return Recipe(model, source, seed, scale)


def _tensors(recipe: Recipe, out: Output) -> Entry:
    spec = recipe.model.spec
    chain = chain_of(spec.name) if recipe.source == TENSORS else None
    named = plain.shapes(chain) if chain else synthetic.profile(spec.name, spec.tensors, spec.nbytes, recipe.seed)
    synthetic.write(out, named, _metadata(recipe), Noise(recipe.seed, spec.name))
    return _entry(recipe, tensors=len(named), nbytes=4 * sum(math.prod(shape) for _, shape in named))


def _graph(recipe: Recipe, out: Output) -> Entry:
    from trims.workload.zoo import graphs, light  # onnx takes 0.2 s to import, and most builds find their files there

    spec = recipe.model.spec
    if recipe.source in (ARCHITECTURE, NARROWED):
        unfilled = graphs.graph(spec.name, recipe.seed, recipe.scale**0.5)
        graphs.mark(unfilled.model, _metadata(recipe))
        unfilled.write(out)
        return _entry(recipe, tensors=len(unfilled.weights), nbytes=unfilled.nbytes)
    proto = light.light(LIGHT[spec.name], recipe.seed)
    graphs.mark(proto, _metadata(recipe))
    out.write(proto.SerializeToString(deterministic=True))
    tensors, nbytes = graphs.weights(proto)
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
