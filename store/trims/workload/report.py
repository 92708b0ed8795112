"""The report of an experiment as one immutable value, and as JSON and CSV.

A report grows: every measured cell gives a new report that holds it, so what an interrupted run has kept is a report as
valid as a whole one, marked partial. `missing` says what a report lacks of what is wanted, `differences` what keeps two
runs from being one. A cell is known by its share, clients, distribution and policy; all else is the same for all cells
of a report and stands in its configuration.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

from trims.errors import BadInput
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.setting import Coldness
from trims.workload.summary import Cell, Summary

SCHEMA = "trims.workload/1"
_SIDES = ("trims", "native", "unlimited")


class Key(NamedTuple):
    """What tells one cell of a report from another."""

    share: float
    clients: int
    distribution: str
    policy: str


@dataclass(frozen=True, slots=True)
class Times:
    """One model asked for by one client alone: medians over `repeats` requests, seconds from asking.

    ready: until its weights are usable by the framework; done: until the first result; spread: half the distance
    between the quartiles of `done`.
    """

    done: float
    ready: float
    repeats: int
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Alone:
    """One model alone, four ways; None for one that was not measured.

    native_warm, native_cold: from the model's file, in the page cache and not; hit: resident; load: trims brings it
    from the disk first, its page cache cold.
    """

    model: str
    native_warm: Times | None = None
    native_cold: Times | None = None
    hit: Times | None = None
    load: Times | None = None

    def native(self, cache: str) -> Times | None:
        """The native side with that page cache: "cold" or "warm"."""
        return self.native_cold if cache == "cold" else self.native_warm


@dataclass(frozen=True, slots=True)
class Curve:
    """Cumulative latencies of one side of one cell: `fractions[i]` of the requests took at most `seconds[i]`."""

    side: str
    share: float
    clients: int
    seconds: tuple[float, ...]
    fractions: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured, on what, and under which configuration.

    made: RFC 3339, when the run began. machine: cpu, cores, memory (bytes), kernel, disk, and limits where they were
    measured. configuration: plain values that are the same for all cells. models: the zoo. coldness: of the native
    loads that were to be cold. partial: it was interrupted.
    """

    made: str
    machine: Mapping[str, Any]
    configuration: Mapping[str, Any]
    models: tuple[ModelSpec, ...]
    alone: tuple[Alone, ...] = ()
    cells: tuple[Cell, ...] = ()
    curves: tuple[Curve, ...] = ()
    coldness: Coldness | None = None
    partial: bool = True

    @property
    def small(self) -> tuple[ModelSpec, ...]:
        """The models that the cells ask for: all but the large ones."""
        return tuple(model for model in self.models if model.family != "large")

    @property
    def oversubscription(self) -> float | None:
        """Bytes of the cells' models over the budget; None without cells."""
        return total_bytes(self.small) / self.cells[0].budget if self.cells and self.cells[0].budget else None

    def of(self, distribution: str | None = None, policy: str | None = None) -> tuple[Cell, ...]:
        """Its cells of one distribution and policy, by default those of its first cell: one map."""
        if not self.cells:
            return ()
        first = self.cells[0]
        wanted = (distribution or first.distribution, policy or first.policy)
        return tuple(cell for cell in self.cells if (cell.distribution, cell.policy) == wanted)

    def with_cell(self, cell: Cell, curves: Sequence[Curve] = ()) -> Report:
        """With this cell, in place of an older one of its key."""
        others = tuple(c for c in self.cells if key(c) != key(cell))
        return replace(self, cells=(*others, cell), curves=(*self.curves, *curves))

    def with_alone(self, alone: Alone) -> Report:
        """With what was measured of one model alone added to what is known of it."""
        known = {a.model: a for a in self.alone}
        old = known.get(alone.model, alone)
        known[alone.model] = replace(old, **{k: v for k, v in _fields(alone).items() if v is not None})
        return replace(self, alone=tuple(known.values()))


def key(cell: Cell) -> Key:
    """What the cell is known by."""
    return Key(cell.share, cell.clients, cell.distribution, cell.policy)


def missing(report: Report, wanted: Sequence[Key]) -> tuple[Key, ...]:
    """The wanted cells that the report lacks, in their order."""
    have = {key(cell) for cell in report.cells}
    return tuple(k for k in wanted if k not in have)


def differences(report: Report, configuration: Mapping[str, Any]) -> list[str]:
    """`NAME is A there and B here` for every value of two configurations that is not the same."""
    names = [*report.configuration, *(name for name in configuration if name not in report.configuration)]
    pairs = [(name, report.configuration.get(name), configuration.get(name)) for name in names]
    return [f"{name} is {was} there and {now} here" for name, was, now in pairs if _plain(was) != _plain(now)]


def to_json(report: Report) -> str:
    """The document, schema trims.workload/1. Figures that do not exist are null."""
    document = {
        "schema": SCHEMA,
        "made": report.made,
        "partial": report.partial,
        "machine": dict(report.machine),
        "configuration": dict(report.configuration),
        "coldness": None if report.coldness is None else report.coldness.to_dict(),
        # Where a file lies is this machine's business, and this run's.
        "models": [{**asdict(model), "file": model.file.rpartition("/")[2]} for model in report.models],
        "alone": [asdict(alone) for alone in report.alone],
        "cells": [cell.to_dict() for cell in report.cells],
        "curves": [asdict(curve) for curve in report.curves],
    }
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def from_json(text: str | bytes, what: str = "the report") -> Report:
    """What `to_json` wrote. Raises BadInput, naming `what`, for anything else and for a newer version."""
    try:
        document = json.loads(text)
        schema = document["schema"]
        if schema != SCHEMA:
            raise BadInput(f"{what} cannot be read", f"its schema is {schema!r}, not {SCHEMA}")
        return Report(
            made=str(document["made"]),
            machine=dict(document["machine"]),
            configuration=dict(document["configuration"]),
            models=tuple(ModelSpec.from_dict(model) for model in document["models"]),
            alone=tuple(_alone(alone) for alone in document["alone"]),
            cells=tuple(Cell.from_dict(cell) for cell in document["cells"]),
            curves=tuple(_curve(curve) for curve in document["curves"]),
            coldness=_coldness(document["coldness"]),
            partial=bool(document["partial"]),
        )
    except BadInput:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else "it is no report of a workload"
        raise BadInput(f"{what} cannot be read", why) from None


def to_csv(report: Report) -> str:
    """One row a cell: its setting, its figures, and each side's as side_figure."""
    own = [f.name for f in fields(Cell) if f.name not in _SIDES]
    figures = [f.name for f in fields(Summary) if f.name != "side"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([*own, *(f"{side}_{name}" for side in _SIDES for name in figures)])
    for cell in report.cells:
        row = cell.to_dict()
        sides = [row[side] or {} for side in _SIDES]
        writer.writerow([*(_csv(row[name]) for name in own), *(_csv(s.get(n)) for s in sides for n in figures)])
    return buffer.getvalue()


def together(first: Coldness | None, second: Coldness | None) -> Coldness | None:
    """The looks of both, as one."""
    if first is None or second is None:
        return first or second
    looks = first.looks + second.looks
    mean = (first.mean * first.looks + second.mean * second.looks) / looks
    return Coldness(first.cache, min(first.least, second.least), mean, max(first.most, second.most), looks)


def _coldness(values: Mapping[str, Any] | None) -> Coldness | None:
    return None if values is None else Coldness(**{k: v for k, v in values.items() if k != "proven"})


def _alone(values: Mapping[str, Any]) -> Alone:
    times = {name: Times(**value) for name, value in values.items() if isinstance(value, dict)}
    return Alone(str(values["model"]), **times)


def _curve(values: Mapping[str, Any]) -> Curve:
    return Curve(**{**values, "seconds": tuple(values["seconds"]), "fractions": tuple(values["fractions"])})


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in fields(value)}


def _plain(value: Any) -> Any:
    """The value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def _csv(value: Any) -> Any:
    return "" if value is None else ";".join(map(str, value)) if isinstance(value, list) else value
