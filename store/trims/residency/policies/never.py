"""Never: nothing is evicted because somebody needs its room. Who does not fit into what is free is refused at once."""

from __future__ import annotations

from trims.residency.policies.lru import Lru


class Never(Lru):
    """What is there stays until it expires or somebody evicts it by hand; for them the order is that of lru."""

    name = "never"
    evicts = False
