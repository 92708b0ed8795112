"""When requests arrive: a closed loop of clients, a Poisson process, or one that comes in bursts.

closed: no times; each client asks again as soon as it was answered, so the load follows the machine (the paper's way).
poisson:rate=R: gaps are independent and exponential with mean 1/R seconds, whatever the machine does (open loop).
bursty:rate=R,factor=F,on=A,off=B: a Poisson process whose rate switches between two values (a Markov-modulated Poisson
process of two states; Fischer and Meier-Hellstern 1993): phases last exponential times of mean A and B seconds, and in
an `on` phase arrivals are F times as frequent as in an `off` one. R is the mean over both, so that bursty and poisson
of one rate are the same load: rate off = R (A + B) / (F A + B), rate on = F times that.

Times start at 0 with the run; the first arrival comes after a gap. They are rounded to nanoseconds, which hides the
last bit in which the logarithms of two machines may differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trims.errors import UsageError
from trims.workload.named import Parameter, Parameters, complete, read, spell

Floats = npt.NDArray[np.float64]

_RATE = Parameter("rate", None, above=1e-9, most=1e9)
_LONGEST = 1e9
_MOST_PHASES = 10_000_000

KNOWN: dict[str, tuple[Parameter, ...]] = {
    "closed": (),
    "poisson": (_RATE,),
    "bursty": (
        _RATE,
        Parameter("factor", 5.0, above=1.0, most=1e6, least=1.0),
        Parameter("on", 2.0, most=_LONGEST),
        Parameter("off", 8.0, most=_LONGEST),
    ),
}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A way in which requests arrive. Raises UsageError for an unknown name or parameter, or one out of range."""

    name: str
    parameters: Parameters = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", complete("arrival", self.name, dict(self.parameters), KNOWN))

    def __str__(self) -> str:
        return spell(self.name, self.parameters)

    @property
    def rate(self) -> float | None:
        """Arrivals a second over the long run; None for a closed loop."""
        return dict(self.parameters).get("rate")

    def times(self, n: int, rng: np.random.Generator) -> Floats | None:
        """Arrival seconds of n requests, float64[n], non-decreasing; None for a closed loop. Raises UsageError."""
        if self.name == "closed":
            return None
        if self.name == "poisson":
            return poisson(n=n, rng=rng, **dict(self.parameters))
        return bursty(n=n, rng=rng, **dict(self.parameters))


CLOSED = Arrival("closed")


def parse(text: str) -> Arrival:
    """The arrival written as `closed`, `poisson:rate=20`, `bursty:rate=20,factor=5,on=2,off=8`. Raises UsageError."""
    return Arrival(*read("arrival", text, KNOWN))


def poisson(rate: float, n: int, rng: np.random.Generator) -> Floats:
    """n arrival seconds of a Poisson process of `rate` a second, float64[n]."""
    return np.round(np.cumsum(_exponentials(n, rng)) / rate, 9)


def bursty(rate: float, factor: float, on: float, off: float, n: int, rng: np.random.Generator) -> Floats:
    """n arrival seconds of the two-state process above, float64[n]; raises UsageError when phases are far too short.

    The expected number of arrivals up to time t grows straight within a phase; its inverse maps the arrivals of a unit
    Poisson process to those of this one.
    """
    slow = rate * (on + off) / (factor * on + off)
    lengths, rates = np.array([on, off]), np.array([slow * factor, slow])
    phase = int(rng.random() >= on / (on + off))
    wanted = np.cumsum(_exponentials(n, rng))
    needed = 2.0 * n / (rate * (on + off))
    if needed > _MOST_PHASES:
        raise UsageError(
            f"{n} arrivals span {needed:.3g} bursts and pauses",
            "they are far shorter than the gaps",
            "use poisson, or longer on and off",
        )
    times, expected = np.zeros(1), np.zeros(1)
    while n and expected[-1] < wanted[-1]:
        states = (phase + np.arange(int(needed) + 64)) % 2
        phase = int(states[-1] + 1) % 2
        spans = lengths[states] * _exponentials(len(states), rng)
        times = np.concatenate((times, times[-1] + np.cumsum(spans)))
        expected = np.concatenate((expected, expected[-1] + np.cumsum(spans * rates[states])))
    return np.round(np.interp(wanted, expected, times), 9)


def _exponentials(n: int, rng: np.random.Generator) -> Floats:
    """n exponential variates of mean 1, by inversion: `Generator.random` is the same in every version of NumPy."""
    variates: Floats = -np.log1p(-rng.random(n))
    return variates
