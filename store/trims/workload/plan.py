"""A plan of requests and the stream it becomes: which model each request asks for, and when.

Everything follows from the plan and its seed, on any machine, independent of the number of clients:

1. Popularity: the models are shuffled by the seed. The first ceil(share * n) of them (at least one) are in play, and
   their order is their rank. A larger share therefore contains a smaller one, with the same most popular models first.
2. Draws: request j takes the uniform number u_j, the same for every share and distribution of one seed, and asks for
   the rank whose part of the cumulated shares holds u_j. Cells of a map so differ by their setting, not by luck.
3. Shift: after every `shift_every` requests the ranks rotate by `shift_by`: the most popular models become the least
   popular, and the next ones take their place. This is the shifting-popularity trace, on which a policy that never
   forgets fails.
4. Arrivals: times by `arrivals`, or none: then `clients` clients share ONE list and each takes its next entry when
   free, so that a real run and a simulated one serve the same order.

Three independent generators (PCG64, one seed sequence, spawn keys 0 to 2) do 1, 2 and 4; only `Generator.random` is
used, whose numbers NumPy does not change between versions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trims.errors import UsageError
from trims.workload.arrivals import CLOSED, Arrival
from trims.workload.distributions import Distribution
from trims.workload.models import ModelSpec, positions, sizes

_POPULARITY, _DRAWS, _ARRIVALS = 0, 1, 2


@dataclass(frozen=True, eq=False)
class Stream:
    """Requests in order. len(stream) = n.

    models: those in play, most popular first where a plan made the stream.
    model: int32[n], position in `models` of what each request asks for. at: float64[n], arrival seconds,
    non-decreasing, or None for a closed loop. clients: how many ask at once in a closed loop.
    The arrays are read-only. Raises UsageError for positions out of range, times out of order, or no client.
    """

    models: tuple[ModelSpec, ...]
    model: npt.NDArray[np.int32]
    at: npt.NDArray[np.float64] | None = None
    clients: int = 1

    def __post_init__(self) -> None:
        model = _frozen(np.asarray(self.model, dtype=np.int32))
        object.__setattr__(self, "model", model)
        if len(model) and not (model.min() >= 0 and model.max() < len(self.models)):
            raise UsageError("a stream asks for a model that it does not name", f"it names {len(self.models)}")
        if self.clients < 1:
            raise UsageError("a stream needs a client", f"clients is {self.clients}")
        if self.at is not None:
            at = _frozen(np.asarray(self.at, dtype=np.float64))
            object.__setattr__(self, "at", at)
            if len(at) != len(model):
                raise UsageError("a stream needs one arrival time a request", f"{len(model)} requests, {len(at)} times")
            if len(at) and not (np.isfinite(at).all() and at[0] >= 0 and (np.diff(at) >= 0).all()):
                raise UsageError("arrival times of a stream go back, or are not numbers")

    def __len__(self) -> int:
        return len(self.model)

    def __getitem__(self, part: slice) -> Stream:
        """A part of the requests, with the same models and times."""
        return Stream(self.models, self.model[part], None if self.at is None else self.at[part], self.clients)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return NotImplemented
        times = self.at is other.at or (
            self.at is not None and other.at is not None and np.array_equal(self.at, other.at)
        )
        return (
            self.models == other.models
            and self.clients == other.clients
            and times
            and np.array_equal(self.model, other.model)
        )

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> npt.NDArray[np.int64]:
        """Requests of each model, int64[len(models)]."""
        return np.bincount(self.model, minlength=len(self.models)).astype(np.int64)

    def bytes_asked(self) -> int:
        """Weight bytes of all requests: what a machine that keeps nothing must load."""
        return int(self.counts() @ sizes(self.models))

    def working_set(self) -> int:
        """Weight bytes of the models that are asked for at least once."""
        return int(sizes(self.models)[self.counts() > 0].sum())

    def closed(self, clients: int) -> Stream:
        """The same requests in a closed loop of `clients`."""
        return Stream(self.models, self.model, None, clients)

    @classmethod
    def from_requests(
        cls,
        models: Sequence[ModelSpec],
        names: Sequence[str],
        at: Sequence[float] | npt.NDArray[np.float64] | None = None,
        clients: int = 1,
    ) -> Stream:
        """The stream of a recorded list of model names; raises UsageError for a name that no model has."""
        where = positions(models)
        unknown = next((name for name in names if name not in where), None)
        if unknown is not None:
            raise UsageError(f"a request asks for {unknown!r}", "no model of the workload has that name")
        asked = np.fromiter((where[name] for name in names), dtype=np.int32, count=len(names))
        return cls(tuple(models), asked, None if at is None else np.asarray(at, dtype=np.float64), clients)


@dataclass(frozen=True, slots=True)
class Plan:
    """A workload before it is drawn; the module says how it is drawn.

    share: of the models that are in play, (0, 1]. clients: at once in a closed loop. requests: how many in all.
    arrival: closed, or open arrivals. shift_every: requests between two shifts of popularity, 0 for never; shift_by:
    ranks rotated by each. Raises UsageError for values out of range or two models of one name.
    """

    models: tuple[ModelSpec, ...]
    distribution: Distribution
    share: float = 1.0
    clients: int = 1
    requests: int = 100
    arrival: Arrival = CLOSED
    seed: int = 0
    shift_every: int = 0
    shift_by: int = 1

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError("a workload needs at least one model")
        positions(self.models)
        if not 0 < self.share <= 1:
            raise UsageError(f"share {self.share:g} of the models is not possible", "it is above 0 and at most 1")
        for name, value, least in (
            ("clients", self.clients, 1),
            ("requests", self.requests, 1),
            ("seed", self.seed, 0),
            ("shift_every", self.shift_every, 0),
        ):
            if value < least:
                raise UsageError(f"{name} {value} is not possible", f"it is at least {least}")

    @property
    def rate(self) -> float | None:
        """Arrivals a second over the long run; None for a closed loop."""
        return self.arrival.rate

    def in_play(self) -> tuple[ModelSpec, ...]:
        """The models in play, most popular first."""
        order = np.argsort(_generator(self.seed, _POPULARITY).random(len(self.models)), kind="stable")
        # The guard keeps 0.07 * 100 = 7.000000000000001 from becoming 8.
        count = max(1, math.ceil(self.share * len(self.models) - 1e-9))
        return tuple(self.models[position] for position in order[:count])

    def stream(self) -> Stream:
        """The requests that this plan and its seed make."""
        models = self.in_play()
        ends = np.cumsum(self.distribution.shares(len(models)))
        uniform = _generator(self.seed, _DRAWS).random(self.requests)
        ranks = np.searchsorted(ends / ends[-1], uniform, side="right")
        if self.shift_every:
            ranks = (ranks + np.arange(self.requests) // self.shift_every * self.shift_by) % len(models)
        at = self.arrival.times(self.requests, _generator(self.seed, _ARRIVALS))
        return Stream(models, ranks.astype(np.int32), at, self.clients)


def _generator(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose,))))


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
