"""Flush: when anything has to go, all that may go does. The paper's cheapest decision, and its dearest consequence."""

from __future__ import annotations

from trims.residency.policies.lru import Lru


class Flush(Lru):
    """All idle ones go at once; in the order of lru, which matters to those who evict by hand."""

    name = "flush"
    sweeps = True
