"""trims: one resident copy of a model's weights for any number of isolated processes.

    import trims

    with trims.open("resnet50") as model:
        model["conv1.weight"]            # a read-only NumPy view of shared memory
        session = model.onnxruntime()    # an InferenceSession over the same memory

`open` uses the residency manager when one runs and maps the store's files otherwise. Importing trims loads nothing
heavy; each name below loads its module when first used. So do the frameworks: `trims.torch`, `trims.safetensors`,
`trims.transformers`, `trims.numpy`, `trims.jax`, `trims.cupy` and `trims.onnxruntime` are the modules of those names in
`trims.integrations`.
"""

from __future__ import annotations

from trims.version import __version__

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import Any

    from trims.client import Model, open
    from trims.errors import TrimsError
    from trims.integrations import cupy as cupy
    from trims.integrations import jax as jax
    from trims.integrations import numpy as numpy
    from trims.integrations import onnxruntime as onnxruntime
    from trims.integrations import safetensors as safetensors
    from trims.integrations import torch as torch
    from trims.integrations import transformers as transformers

__all__ = ["Model", "TrimsError", "__version__", "open"]

_HOMES = {"open": "trims.client", "Model": "trims.client", "TrimsError": "trims.errors"}
_FRAMEWORKS = ("cupy", "jax", "numpy", "onnxruntime", "safetensors", "torch", "transformers")


def __getattr__(name: str) -> Any:
    if name not in _HOMES and name not in _FRAMEWORKS:
        raise AttributeError(f"module 'trims' has no attribute {name!r}")
    import importlib

    if name in _FRAMEWORKS:
        value = importlib.import_module("trims.client.handle").integration(name)
    else:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
