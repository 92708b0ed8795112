"""The stages, their items in order, and how long each may take.

An item is a function of the place that returns what it found, as JSON; it raises Skip for what is not to be had here.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from bench.gpu.place import Place

Item = Callable[[Place], Any]
STAGES = {
    "settle": "open questions about the driver and frameworks, each a small experiment",
    "tests": "the tests that need a GPU: the driver's contract, clients, managers",
    "isolation": "through trims: a client that writes, kills of each process, demotion, reading back",
    "figures": "copies, loads, attaches, clients at once, beside what they replace",
    "paper": "the paper's map (Figure 11) on the GPU, small",
}
MODULES = {
    "settle": ("settle", "settle_sharing", "settle_frameworks"),
    "tests": ("testing",),
    "isolation": ("isolation", "isolation_places"),
    "figures": ("copies", "crowd", "beside", "loading"),
    "paper": ("paper",),
}
STAGE_SECONDS = 225.0
"""Of a stage: what is not begun by then is left for the next run."""
ITEM_SECONDS = 60.0
"""Of an item that names no limit of its own in its module's SECONDS."""


def items(stage: str) -> dict[str, tuple[str, float]]:
    """Item -> (module, limit in seconds), in the order in which they are done."""
    found: dict[str, tuple[str, float]] = {}
    for name in MODULES[stage]:
        module = importlib.import_module(f"bench.gpu.{name}")
        limits = getattr(module, "SECONDS", {})
        found |= {item: (name, limits.get(item, ITEM_SECONDS)) for item in module.ITEMS}
    return found


def find(stage: str, item: str) -> Item:
    """Raises KeyError when there is none."""
    module, _ = items(stage)[item]
    made: Item = importlib.import_module(f"bench.gpu.{module}").ITEMS[item]
    return made
