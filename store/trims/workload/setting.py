"""How a stream of requests is served, and what serving it gave: values of the runner.

A *request* is what a function does: a process of its own starts, gets the model's weights, makes the framework ready,
gives its first result, and ends. The two sides differ in one thing, where the weights come from: `trims.open`, or the
framework's own loader on the model's file. Framework, threads, inputs and process start are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from trims.errors import UsageError
from trims.workload.outcomes import Outcomes

SIDES = ("trims", "native")
FUNCTIONS = ("auto", "weights", "onnxruntime", "torch", "nothing")
STARTS = ("fork", "process")
CACHES = ("warm", "cold")
SHARES = ("exact", "max")
WARM = 0.99
"""Least share of a file's bytes in the page cache for which a run may be called warm."""
COLD = 0.01
"""Most share of a file's bytes in the page cache for which a request may be called cold."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How requests are served. Raises UsageError for an unknown word or a number out of range.

    side: "trims" or "native". function: "weights" reads every byte once, "onnxruntime" runs one inference, "torch"
    reads every byte through tensors, "auto" is what each model says it runs; "nothing" ends at once, which is what
    measuring itself costs. start: "fork" has a client with all libraries imported fork a process a request, as FaaS
    platforms keep prewarmed runtimes; "process" starts an interpreter a request, imports and all.
    cache: whether a load finds its file in the page cache. place: where trims holds the model. share: of an ONNX
    Runtime session. threads: of each function, both sides alike: one, as a platform gives a function a share of the
    machine. timeout: seconds after which a request is ended and has failed.
    """

    side: str = "trims"
    function: str = "auto"
    start: str = "fork"
    cache: str = "warm"
    place: str = "host"
    share: str = "exact"
    threads: int = 1
    timeout: float = 120.0

    def __post_init__(self) -> None:
        for name, value, known in (
            ("side", self.side, SIDES),
            ("function", self.function, FUNCTIONS),
            ("start", self.start, STARTS),
            ("cache", self.cache, CACHES),
            ("place", self.place, ("host",)),
            ("share", self.share, SHARES),
        ):
            if value not in known:
                raise UsageError(f"unknown {name} {value!r} of a workload", "", "known: " + ", ".join(known))
        if self.threads < 1 or not self.timeout > 0:
            raise UsageError("threads and timeout of a workload are above 0", f"{self.threads}, {self.timeout:g}")

    def on(self, side: str) -> Setting:
        """The same on the other side."""
        return replace(self, side=side)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Coldness:
    """The page cache as it was found: proof that a cold run was cold, and a warm one warm.

    cache: what was wanted. least, mean, most: share of the bytes of a model's files in the page cache. It is looked at,
    `looks` times: for a cold run just before each request, for a warm one at each model in play, before and after.
    """

    cache: str
    least: float
    mean: float
    most: float
    looks: int

    @property
    def proven(self) -> bool:
        """Whether every look found what was wanted."""
        return self.least >= WARM if self.cache == "warm" else self.most <= COLD

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "proven": self.proven}


@dataclass(frozen=True, slots=True)
class Run:
    """What serving a stream gave.

    outcomes: OUTCOME[n], one row a request, in order of request, seconds since the run began. began: that moment on
    CLOCK_MONOTONIC. seconds: first asked to last done. counters: the manager's, how much each rose. cached: the looks
    that coldness is made of. reasons: why requests failed, by number. notes: remarks for whoever reads the figures.
    starts: seconds until the clients were ready, before the run began.
    """

    outcomes: Outcomes
    setting: Setting
    began: float
    seconds: float
    counters: Mapping[str, int]
    coldness: Coldness | None
    cached: tuple[float, ...] = ()
    reasons: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    starts: float = 0.0


@dataclass(frozen=True, slots=True)
class Baseline:
    """One model alone: medians over `repeats` requests, in seconds; done: asked to first result, ready: to usable.

    spread: half the distance between the quartiles of `done`. coldness: the page cache as it was found.
    """

    done: float
    ready: float
    repeats: int
    spread: float = 0.0
    coldness: Coldness | None = None
