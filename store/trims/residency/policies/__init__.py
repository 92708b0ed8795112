"""The eviction policies by name. A new one is one file here and one line in the table."""

from __future__ import annotations

from trims.errors import UsageError
from trims.residency.policies.base import Policy
from trims.residency.policies.lru import Lru

POLICIES: dict[str, type[Policy]] = {
    "lru": Lru,
}

ALIASES = {"lcu": "lfu", "all": "flush"}
"""Other names: those of the paper and of its authors' tool."""

__all__ = ["ALIASES", "POLICIES", "Lru", "Policy", "make"]


def make(name: str) -> Policy:
    """An empty policy by its name or another name of it. Raises UsageError, naming those there are."""
    found = POLICIES.get(ALIASES.get(name, name))
    if found is None:
        raise UsageError(f"there is no policy {name!r}", "", f"known: {', '.join(POLICIES)}")
    return found()
