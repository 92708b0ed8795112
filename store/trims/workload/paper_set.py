"""What the paper ran, as values: which cells, how large, how often, and about how long each part takes.

The map is Figure 11: 37 small models of which a share is in play, 1 to 10 clients, 100 requests a cell drawn by a
Pareto distribution with alpha = 1, LRU, and room for half of the models' bytes. `--all` adds the paper's other
distributions with 1, 5 and 10 clients, under LRU and under LFU (their LCU). `--quick` takes a sample of the cells,
smaller models and fewer repeats, so that all of it, with building the models, ends within five minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from trims.errors import UsageError
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.report import Key

PARETO = "pareto:alpha=1,xm=1"
# Of their exponential ones (rates 0.5, 1, 1.5) one is left: the rate scales all weights alike, which changes nothing.
OTHERS = (
    PARETO, "pareto:alpha=2,xm=1", "pareto:alpha=3,xm=1", "uniform", "exponential:rate=1", "weibull:k=0.5,lam=1",
    "weibull:k=1,lam=1", "weibull:k=1.5,lam=1", "weibull:k=5,lam=1",
)  # fmt: skip
GIB = 1 << 30
WAYS = ("native_cold", "native_warm", "hit", "load")
"""How each model is asked for alone; see `report.Alone`."""


@dataclass(frozen=True, slots=True)
class PaperSet:
    """One choice of what to run.

    scale: times the paper's sizes. large: bytes of the largest of the large models before scaling, 0 for none.
    repeats, large_repeats: requests to each model alone, each way. others: (distribution, policy) besides the map's,
    each run with all models and `other_clients`, `other_requests` of them.
    """

    name: str
    scale: float = 1.0
    function: str = "weights"
    cache: str = "cold"
    shares: tuple[float, ...] = tuple(n / 10 for n in range(1, 11))
    clients: tuple[int, ...] = tuple(range(1, 11))
    requests: int = 100
    repeats: int = 5
    large: int = 4 * GIB
    large_repeats: int = 3
    seed: int = 0
    others: tuple[tuple[str, str], ...] = ()
    other_clients: tuple[int, ...] = (1, 5, 10)
    other_requests: int = 500

    def map_keys(self) -> tuple[Key, ...]:
        """The cells of Figure 11. The corners that claims rest on come first: an early end then says most."""
        last = (self.shares[-1], self.clients[-1])
        pairs = [(s, c) for c in self.clients for s in self.shares]
        return tuple(Key(s, c, PARETO, "lru") for s, c in sorted(pairs, key=lambda pair: pair != last))

    def other_keys(self) -> tuple[Key, ...]:
        """The cells of `others`, without those of the map."""
        known = set(self.map_keys())
        wanted = [Key(1.0, c, d, p) for d, p in self.others for c in self.other_clients]
        return tuple(key for key in wanted if key not in known)

    def configuration(self) -> dict[str, Any]:
        """What must be the same for a report to be gone on with. The cells wanted are not part of it."""
        return {
            "set": self.name, "scale": self.scale, "function": self.function, "cache": self.cache, "start": "fork",
            "requests": self.requests, "repeats": self.repeats, "large_repeats": self.large_repeats,
            "large": self.large, "seed": self.seed,
        }  # fmt: skip


def choose(quick: bool, all: bool, scale: float | None, function: str, cache: str) -> PaperSet:
    """The set for these wishes; None takes the set's own scale. Raises UsageError for a scale out of range."""
    chosen = PaperSet("paper", function=function, cache=cache)
    if quick:
        chosen = replace(
            chosen, name="quick", scale=0.25, shares=(0.1, 0.4, 0.7, 1.0), clients=(1, 4, 10), repeats=3,
            large=2 * GIB, large_repeats=2, other_clients=(1, 10), other_requests=100,
        )  # fmt: skip
    if scale is not None:
        if not 0 < scale <= 4:
            raise UsageError(f"scale {scale:g} is not possible", "it is above 0 and at most 4")
        chosen = replace(chosen, scale=scale)
    return replace(chosen, others=tuple((d, p) for p in ("lru", "lfu") for d in OTHERS)) if all else chosen


# Rough speeds, for the bar and its time left only: bytes a second, and seconds.
BUILD, STORE, COLD, WARM, TOUCH = 450e6, 400e6, 500e6, 1.2e9, 6e9
REQUEST, CLIENT = 0.02, 0.4


def alone_cost(model: ModelSpec, way: str, repeats: int) -> float:
    """About how many seconds one model takes alone, one way."""
    speed = {"native_cold": COLD, "native_warm": WARM, "hit": TOUCH, "load": COLD}[way]
    return repeats * (REQUEST + model.nbytes / speed)


def cell_cost(models: Sequence[ModelSpec], clients: int, requests: int, sides: int) -> float:
    """About how many seconds one cell takes."""
    each = REQUEST + total_bytes(models) / max(1, len(models)) / COLD
    return sides * (1.0 + clients * CLIENT) + each * requests * (1.0 + 0.4 * (sides - 1))


def need(models: Sequence[ModelSpec], large: Sequence[ModelSpec], clients: int, sessions: bool) -> Mapping[str, int]:
    """Bytes that a run needs at once: {"disk", "memory"}.

    sessions: small models run in ONNX Runtime, whose store has each model twice and whose native sessions hold about
    twice the weights. disk: every model's file and its container. memory: all small models resident (the run with room
    for all), or each client with a private copy of the largest, or a large model three times over: its region, its
    native copy, and its file on the way.
    """
    twice = 2 if sessions else 1
    biggest = max((model.nbytes for model in (*models, *large)), default=0)
    small = max((model.nbytes for model in models), default=0)
    resident = int(1.25 * total_bytes(models)) + (1 << 29)
    return {
        "disk": int(1.05 * ((1 + twice) * total_bytes(models) + 2 * total_bytes(large))) + (1 << 30),
        "memory": max(resident, twice * clients * small, 3 * biggest) + (1 << 29),
    }
