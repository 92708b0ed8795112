"""A recorded log of requests as columns, and the stream of requests that it can be asked again as."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trims.workload.models import ModelSpec
from trims.workload.outcomes import FAILED
from trims.workload.plan import Stream

REQUEST: Final = np.dtype(
    [("at", "f8"), ("client", "i4"), ("model", "i4"), ("how", "u1"), ("wait", "f8"), ("held", "f8")]
)
Requests = npt.NDArray[np.void]


class TracedModel(msgspec.Struct, frozen=True):
    """One form of a model in one place. digest: "" where the store had no such model; then nothing else is known."""

    name: str
    digest: str = ""
    nbytes: int = 0
    tensors: int = 0
    variant: str = "raw"
    place: str = "host"


class TracedClient(msgspec.Struct, frozen=True):
    """One connection: its process, and the batch job it said it runs in."""

    pid: int = 0
    job: str = ""


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded log of requests.

    requests: REQUEST[n], sorted by `at`, read-only: at (arrival, seconds since `started`), client and model
    (positions), how (the numbers of outcomes.HOW), wait (seconds to the answer), held (seconds of the lease; NaN where
    there is none, or it is held still). seconds: the length of the recording; with no end in the file, the last time in
    it. lost: events the recorder missed. about: further fields of the header.
    """

    started: str
    models: tuple[TracedModel, ...]
    clients: tuple[TracedClient, ...]
    requests: Requests
    seconds: float = 0.0
    lost: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.requests)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        names = ("started", "models", "clients", "seconds", "lost")
        same = all(getattr(self, name) == getattr(other, name) for name in names) and dict(self.about) == other.about
        return same and all(
            np.array_equal(self.requests[name], other.requests[name], equal_nan=name == "held")
            for name in REQUEST.names or ()
        )

    __hash__ = None  # type: ignore[assignment]

    def peak(self) -> int:
        """Most requests under way at once: from arrival to the lease's end; one that is held still lasts to the end."""
        if not len(self):
            return 0
        asked = self.requests["at"]
        held = np.where(self.requests["how"] == FAILED, 0.0, self.requests["held"])
        ends = asked + self.requests["wait"] + np.where(np.isnan(held), math.inf, held)
        times = np.concatenate([asked, ends])
        steps = np.concatenate([np.ones(len(asked), np.int64), -np.ones(len(ends), np.int64)])
        order = np.lexsort((-steps, times))  # who comes as another goes is there at the same time
        return int(np.cumsum(steps[order]).max())

    def stream(self, closed: bool = False, clients: int | None = None) -> Stream:
        """What was asked for, to be asked again: at the recorded times, or as a closed loop in the recorded order.

        Requests for models that were not in the store are left out. Forms of one model are one model; of two models of
        one name, the later is named NAME@DIGEST. clients: `peak()` unless given.
        """
        models, where = _specs(self.models)
        position = where[self.requests["model"]] if len(self) else np.zeros(0, np.int32)
        known = position >= 0
        at = None if closed else np.ascontiguousarray(self.requests["at"][known])
        return Stream(models, position[known], at, clients if clients is not None else max(1, self.peak()))


def _specs(traced: tuple[TracedModel, ...]) -> tuple[tuple[ModelSpec, ...], npt.NDArray[np.int32]]:
    """The models by digest, and the position of each line's among them (-1: it is none)."""
    by_digest: dict[str, int] = {}
    specs: list[ModelSpec] = []
    names: set[str] = set()
    where = np.full(len(traced), -1, np.int32)
    for number, model in enumerate(traced):
        if not model.digest:
            continue
        if model.digest not in by_digest:
            by_digest[model.digest] = len(specs)
            name = model.name if model.name not in names else f"{model.name}@{model.digest[:12]}"
            names.add(name)
            specs.append(ModelSpec(name, model.nbytes, model.tensors, family="own", synthetic=False))
        where[number] = by_digest[model.digest]
    return tuple(specs), where
