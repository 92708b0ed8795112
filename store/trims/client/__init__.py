"""The client library: `open` a model, get a `Model`. Nothing is imported until the first of them is used."""

from __future__ import annotations

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms

if TYPE_CHECKING:
    from typing import Any

    from trims.client.attachment import DirectModeWarning
    from trims.client.handle import Model, open

__all__ = ["DirectModeWarning", "Model", "open"]

_HOMES = {
    "open": "trims.client.handle",
    "Model": "trims.client.handle",
    "DirectModeWarning": "trims.client.attachment",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trims.client' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
