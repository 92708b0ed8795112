"""The tensors in what a checkpoint holds, by dotted names.

A training loop saves more than weights: the state dict under a name of its own, optimiser, scheduler, counters. The
wrapper of the state dict goes, so that its tensors have the names the network gave them; optimiser state is left out;
other tensors keep their whole path. Values that are no tensors are left out, too, and counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trims.disk.importers.base import MAX_TENSORS
from trims.disk.importers.pickled import Instance, Refused
from trims.disk.importers.pt_tensors import Tensor

_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model")
_TRAINING = ("optimizer", "optimiser", "optim", "lr_scheduler", "scheduler", "grad_scaler", "scaler", "amp_scaler")
_MAX_DEPTH, _MAX_NAME = 64, 4096
_MAX_STEPS = 4 * MAX_TENSORS  # containers are shared in a pickle, so a small one can spell very many paths


def flatten(value: Any) -> tuple[dict[str, Tensor], dict[str, int]]:
    """(tensors by name, how many values of each part were left out). Raises Refused."""
    walk = _Walk()
    if isinstance(value, dict) and not any(isinstance(v, Tensor) for v in value.values()):
        value = _unwrap(value, walk)
    walk.visit("", value, 0)
    return walk.tensors, walk.skipped


def _unwrap(value: dict[Any, Any], walk: _Walk) -> dict[Any, Any]:
    """A training checkpoint without its optimiser, its state dict's tensors at the top."""
    kept = {}
    for key, part in value.items():
        if isinstance(key, str) and key.lower().startswith(_TRAINING):
            walk.skipped[key] = 1
        else:
            kept[key] = part
    wrapper = next((name for name in _WRAPPERS if isinstance(kept.get(name), dict)), None)
    if wrapper is None:
        return kept
    inner = kept.pop(wrapper)
    if set(inner) & set(kept):
        return {wrapper: inner, **kept}
    return {**inner, **kept}


class _Walk:
    """One walk over nested containers."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.skipped: dict[str, int] = {}
        self._steps = 0

    def visit(self, name: str, value: Any, depth: int) -> None:
        if depth > _MAX_DEPTH or self._steps > _MAX_STEPS:
            raise Refused("", "its values are nested too deep, or in circles")
        if len(name) > _MAX_NAME:
            raise Refused("", f"it has a tensor with a name of over {_MAX_NAME} characters")
        if isinstance(value, Tensor):
            self._add(name or "tensor", value)
            return
        state = value.state if isinstance(value, Instance) else value
        if isinstance(state, dict):
            parts: Iterable[tuple[Any, Any]] = state.items()
        elif isinstance(state, (list, tuple)):
            parts = enumerate(state)
        else:
            self._skip(name)
            return
        self._steps += len(state) + 1
        for key, part in parts:
            if not isinstance(key, (str, int)):
                self._skip(name)
            else:
                self.visit(f"{name}.{key}" if name else str(key), part, depth + 1)

    def _add(self, name: str, tensor: Tensor) -> None:
        if name in self.tensors:
            raise Refused("", f"two of its tensors would be named {name[:200]!r}", "save the state dict alone")
        self.tensors[name] = tensor

    def _skip(self, name: str) -> None:
        top = name.partition(".")[0] or "."
        if len(self.skipped) < 100 or top in self.skipped:
            self.skipped[top] = self.skipped.get(top, 0) + 1
