"""How requests spread over models: the share of all requests that each rank of popularity gets.

The paper gives every model a weight drawn from a distribution (Pareto, exponential, ...) and asks for models in
proportion to their weights. The authors' tool draws these weights anew each run, without a seed, and the picks with a
fixed one: two runs of one setting then ask different machines for different things, and their difference is partly
luck of the draw: with Pareto(1, 1) and 37 models, the most popular one gets between 11 % and 80 % of all requests in
nine draws of ten. Here the weights are the *expected profile* of such a draw. The i-th highest of n independent draws
lies about the quantile Q(1 - (i - 1/2)/n) (Hazen's plotting position; Hazen 1914), so

    weight of rank i = Q(1 - p_i),   p_i = (i - 1/2)/n,   i = 1..n,   shares = weights / their sum.

These are near the mean shares of many draws: 36 % for the most popular of 37 by Pareto(1, 1), where the mean is 34 %.

| name | Q(1 - p), scaled | parameters | source |
|---|---|---|---|
| pareto | xm * p^(-1/alpha) | alpha=1, xm=1 | the paper's |
| zipf | i^(-s), by rank, no draw | s=1 | Zipf 1949; web requests: Breslau et al., INFOCOM 1999 |
| uniform | 1 for all: everybody equal | | the paper's |
| exponential | -ln(p)/rate | rate=1 | the paper's |
| weibull | lam * (-ln p)^(1/k) | k=1, lam=1 | the paper's |
| poisson | mean of Q over the slice (1 - i/n, 1 - (i-1)/n) | lam=1 | the paper's |

A factor of scale (xm, rate, lam of weibull) cancels in the shares: it is accepted because the paper names it. A Poisson
quantile is a staircase that starts at 0, where n = 1 and lam = 1/2 would leave no weight at all; averaging it over the
rank's slice keeps the total at lam for every n. Ranks of share 0 remain possible: models of which nobody asks.
All weights are computed as logarithms relative to the largest, so no tail overflows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trims.errors import UsageError
from trims.workload.named import Parameter, Parameters, complete, read, spell

Floats = npt.NDArray[np.float64]

KNOWN: dict[str, tuple[Parameter, ...]] = {
    "pareto": (Parameter("alpha", 1.0), Parameter("xm", 1.0)),
    "zipf": (Parameter("s", 1.0, least=0.0),),
    "uniform": (),
    "exponential": (Parameter("rate", 1.0),),
    "weibull": (Parameter("k", 1.0), Parameter("lam", 1.0)),
    "poisson": (Parameter("lam", 1.0, most=1e6),),
}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A distribution of requests over ranks. Raises UsageError for an unknown name, or a parameter out of range."""

    name: str
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", complete("distribution", self.name, dict(self.parameters), KNOWN))

    def __str__(self) -> str:
        return spell(self.name, self.parameters)

    def shares(self, n: int) -> Floats:
        """Shares of requests of the n ranks, float64[n], most popular first: non-increasing, sum 1.

        Raises UsageError for n < 1.
        """
        if n < 1:
            raise UsageError("no models to share requests between", f"n is {n}")
        with np.errstate(over="ignore", under="ignore"):
            weights = _WEIGHTS[self.name](n, **dict(self.parameters))
        # A last bit of rounding must not make a rank more popular than the one before it.
        shares: Floats = np.minimum.accumulate(weights / weights.sum())
        return shares


def parse(text: str) -> Distribution:
    """The distribution written as `pareto`, `zipf:s=1.1`, ...; `parse(str(d)) == d`. Raises UsageError."""
    return Distribution(*read("distribution", text, KNOWN))


def _p(n: int) -> Floats:
    return (np.arange(1, n + 1, dtype=np.float64) - 0.5) / n


def _pareto(n: int, alpha: float, xm: float) -> Floats:
    logs = np.log(_p(n))
    return _exp((logs[0] - logs) / alpha)


def _zipf(n: int, s: float) -> Floats:
    return _exp(-s * np.log(np.arange(1, n + 1, dtype=np.float64)))


def _uniform(n: int) -> Floats:
    return np.ones(n)


def _exponential(n: int, rate: float) -> Floats:
    return _weibull(n, 1.0, 1.0)


def _weibull(n: int, k: float, lam: float) -> Floats:
    logs = np.log(-np.log(_p(n)))
    return _exp((logs - logs[0]) / k)


def _poisson(n: int, lam: float) -> Floats:
    """The integral of the quantile function, straight lines between the steps of the cdf, differenced at i/n."""
    reach = 12 * math.sqrt(lam) + 40  # beyond it lies less than 1e-17 of the probability
    low = max(0, int(lam - reach))
    counts = np.arange(low, int(lam + reach) + 1, dtype=np.float64)
    logs = np.cumsum(np.log(lam / np.maximum(counts, 1.0)))
    mass = np.exp(logs - logs.max())
    mass /= mass.sum()
    below = np.concatenate(([0.0], np.cumsum(mass)))
    weight = np.concatenate(([0.0], np.cumsum(counts * mass)))
    slices = np.diff(np.interp(np.arange(n + 1) / n, below / below[-1], weight))
    return np.maximum(slices, 0.0)[::-1]


def _exp(logs: Floats) -> Floats:
    weights: Floats = np.exp(logs)
    return weights


_WEIGHTS: dict[str, Callable[..., Floats]] = {
    "pareto": _pareto,
    "zipf": _zipf,
    "uniform": _uniform,
    "exponential": _exponential,
    "weibull": _weibull,
    "poisson": _poisson,
}
