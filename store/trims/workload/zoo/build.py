"""Build the files that stand for models of the paper: what is missing, in one directory, each whole or not there.

`recipes` says what a model becomes. A file's name carries the source, the scale and the seed, so a changed parameter
never meets a file that was made with another; zoo.json says of every file what it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from trims.workload.models import ModelSpec
from trims.workload.zoo.files import Directory, Entry, held, read_manifest
from trims.workload.zoo.recipes import Recipe, choose
from trims.workload.zoo.table import ZooModel, check_scale

Progress = Callable[[str, int, int], None]
"""Called with a model's name, the bytes of this build done so far, and the bytes that it will have done at its end."""


def build(
    models: Sequence[ZooModel],
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    scale: float = 1.0,
    progress: Progress | None = None,
    architectures: bool = False,
    weights_only: bool = False,
) -> tuple[ModelSpec, ...]:
    """The specs of `models` with true sizes and `file` set, each built when missing from `directory` (made if missing).

    models: of `paper_models(scale)` and `large_models(scale)`; scale: the same again.
    architectures: graphs for all small models, not only the light ones; a scale below 1 narrows their layers, so their
    sizes follow it only roughly. weights_only: safetensors files and no graphs at all.
    Raises UsageError (scale), NoSpace before anything is written, LockTimeout when another build is at work there,
    BadInput when a file of the user's is in the way.
    """
    check_scale(scale)
    wanted = [choose(model, seed, scale, architectures, weights_only) for model in models]
    with held(os.fspath(directory)) as room:
        missing = [recipe for recipe in wanted if room.entry(recipe.file) is None]
        meter = _Meter(sum(recipe.model.spec.nbytes for recipe in missing), progress)
        room.check_space(meter.goal)
        return tuple(_make(room, recipe, meter) for recipe in wanted)


def sources(specs: Sequence[ModelSpec]) -> list[str]:
    """What the file of each of the built `specs` was made from: "architecture", "onnx light_vgg19", "synthetic"..."""
    return [str(read_manifest(os.path.dirname(spec.file))[os.path.basename(spec.file)]["source"]) for spec in specs]


class _Meter:
    """Counts the bytes of a build. A model counts as what it was expected to have, so the goal is always met."""

    def __init__(self, goal: int, progress: Progress | None) -> None:
        self.goal = goal
        self._done = 0
        self._progress = progress

    def watch(self, recipe: Recipe) -> Callable[[int], Entry]:
        """What fills the file of `recipe`, with each of its steps reported."""
        expected, name = recipe.model.spec.nbytes, recipe.model.spec.name
        written = 0

        def step(nbytes: int) -> None:
            nonlocal written
            written += nbytes
            if self._progress:
                self._progress(name, self._done + min(written, expected), self.goal)

        def fill(fd: int) -> Entry:
            step(0)  # a graph may take seconds before its first byte
            entry = recipe.fill(fd, step)
            step(expected)
            self._done += expected
            return entry

        return fill


def _make(room: Directory, recipe: Recipe, meter: _Meter) -> ModelSpec:
    """The spec of the file of `recipe`, built when missing."""
    entry = room.entry(recipe.file) or room.add(recipe.file, meter.watch(recipe))
    return replace(
        recipe.model.spec,
        nbytes=entry["bytes"],
        tensors=entry["tensors"],
        synthetic=entry["synthetic"],
        runs=entry["runs"],
        file=os.path.join(room.path, recipe.file),
    )
