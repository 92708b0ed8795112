"""Eager: a residency is given up when its last lease ends; nothing is kept for the next client.

What was warmed or pinned and never leased since stays, and so does what is pinned when its last lease ends. All that
goes as with lru when room is needed.
"""

from __future__ import annotations

from trims.residency.policies.lru import Lru


class Eager(Lru):
    """The last close frees; what is idle all the same goes in the order of lru."""

    name = "eager"
    eager = True
