"""The eviction policies by name. A new one is one file here and one line in the table."""

from __future__ import annotations

from trims.errors import UsageError
from trims.residency.policies.base import Policy
from trims.residency.policies.eager import Eager
from trims.residency.policies.fifo import Fifo
from trims.residency.policies.flush import Flush
from trims.residency.policies.gdsf import Gdsf
from trims.residency.policies.lfu import Lfu
from trims.residency.policies.lru import Lru
from trims.residency.policies.never import Never
from trims.residency.policies.random import Random
from trims.residency.policies.s3fifo import S3Fifo
from trims.residency.policies.sieve import Sieve

POLICIES: dict[str, type[Policy]] = {
    "lru": Lru,
    "lfu": Lfu,
    "fifo": Fifo,
    "random": Random,
    "flush": Flush,
    "eager": Eager,
    "never": Never,
    "gdsf": Gdsf,
    "s3fifo": S3Fifo,
    "sieve": Sieve,
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
