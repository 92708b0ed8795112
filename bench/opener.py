"""The process that bench_attach measures in: opens a model again and again, taking turns with other loaders."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import trims
import trims.client.handle
import trims.client.session


def opened(name: str) -> float:
    """Seconds from asking to every tensor as a view. Giving the lease back is not counted."""
    begun = time.perf_counter()
    model = trims.open(name, place="host")
    views = model.tensors()
    taken = time.perf_counter() - begun
    assert len(views) >= 1
    del views
    model.close()
    return taken


def timed(load: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    loaded = load()
    taken = time.perf_counter() - begun
    del loaded
    return taken


def npz(path: str) -> dict[str, np.ndarray[Any, Any]]:
    with np.load(path) as file:
        return dict(file.items())


def loaders(paths: dict[str, str]) -> dict[str, Callable[[], Any]]:
    made: dict[str, Callable[[], Any]] = {}
    for label, path in paths.items():
        if label.startswith("safetensors"):
            from safetensors.numpy import load_file

            made[label] = lambda path=path: load_file(path)
        elif label.startswith("torch"):
            import torch

            made[label] = lambda path=path: torch.load(path, mmap=True, weights_only=True)
        else:
            made[label] = lambda path=path: npz(path)
    return made


def main() -> None:
    spec = json.loads(sys.argv[1])
    if spec["way"] == "first":
        print(json.dumps({"trims": [opened(spec["name"])]}))
        return
    others = loaders(spec["others"])
    samples: dict[str, list[float]] = {label: [] for label in ("trims", *others)}
    opened(spec["name"])
    for n in range(spec["rounds"] + 1):
        for label, load in others.items():
            samples[label] += [timed(load)] if n else []
        # a figure of microseconds needs more samples than one of seconds
        samples["trims"] += [opened(spec["name"]) for _ in range(100)]
    print(json.dumps(samples))


if __name__ == "__main__":
    main()
