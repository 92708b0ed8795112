"""The models alone in one row a family: the short form of the paper's Table 3 with what was measured of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trims.workload.report import Report, Times
from trims.workload.summary import geometric_mean

FAMILIES = ("small", "large", "own")


@dataclass(frozen=True, slots=True)
class Row:
    """Geometric means over a family's models of the seconds to the first result; None where not all were measured.

    native_cold, native_warm: from the model's file; load: trims brings it from the disk first; hit: it is resident.
    """

    family: str
    models: int
    native_cold: float | None
    native_warm: float | None
    load: float | None
    hit: float | None

    def gain(self, above: str, below: str) -> float | None:
        """How many times `below` goes into `above`."""
        top, bottom = getattr(self, above), getattr(self, below)
        return None if top is None or bottom is None else float(top / bottom)


def rows(report: Report) -> tuple[Row, ...]:
    """A row for each family of which models were measured alone."""
    made = []
    for family in FAMILIES:
        names = {model.name for model in report.models if model.family == family}
        found = [alone for alone in report.alone if alone.model in names]
        if found:
            means = (
                _mean([getattr(alone, way) for alone in found]) for way in ("native_cold", "native_warm", "load", "hit")
            )
            made.append(Row(family, len(found), *means))
    return tuple(made)


def _mean(times: Sequence[Times | None]) -> float | None:
    done = [t.done for t in times if t is not None]
    return geometric_mean(done) if len(done) == len(times) else None
