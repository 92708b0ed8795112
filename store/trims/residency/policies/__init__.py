"""The eviction policies by name. A new one is one file here and one line in the table."""

from __future__ import annotations

from trims.residency.policies.base import Policy
from trims.residency.policies.lru import Lru

POLICIES: dict[str, type[Policy]] = {
    "lru": Lru,
}

__all__ = ["POLICIES", "Lru", "Policy"]
