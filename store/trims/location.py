"""The name of weights within a graph; apart from `trims.manifest`, whose classes cost a session's user 2 ms."""

from __future__ import annotations

LOCATION = "trims"
"""What every stored graph names as the file of its weights: one buffer, the region."""
