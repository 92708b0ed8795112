"""bench calibrate and validate: what things cost on this machine, and whether simulated runs agree with real ones."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trims import units
from trims.errors import TrimsError, UsageError
from trims.workload import calibrate, cost, machine, report_file, validate
from trims.workload.fits import Room
from trims.workload.runner import Watch
from trims.workload.world import World, default_directory
from trims_cli import output
from trims_cli.counting import Count
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.simulating import percent, seconds
from trims_cli.simulating_input import read_cost

CALIBRATION = 300
"""Requests of each run of a calibration."""
COST = (Column("FIGURE", "figure"), Column("VALUE", "_value"))
VERDICTS = (
    Column("CHECK", "_name"), Column("CLIENTS", "clients", "int"), Column("POLICY", "policy"),
    Column("CACHE", "cache"), Column("HITS", "_hits"), Column("SIMULATED", "_simulated_hits"),
    Column("POINTS", "_points"), Column("MEAN", "_mean"), Column("LEAST", "_least"), Column("GREATEST", "_greatest"),
    Column("SIMULATED-MEAN", "_simulated_mean"), Column("OFF", "_off"), Column("PACE", "_pace"),
    Column("AGREES", "agrees"),
    Column("DISTRIBUTION", "distribution", usual=False), Column("ARRIVAL", "arrival", usual=False),
    Column("REQUESTS", "requests", "int", usual=False),
)  # fmt: skip


class Disagrees(TrimsError):
    """A simulated run lies outside what the real ones allow."""


def run_calibrate(settings: Settings, path: str | None, scale: float, requests: int, work_dir: str | None) -> int:
    """Measure, print, and write the cost file."""
    check(path, requests)
    with _furnished(settings, scale, work_dir) as (world, room):
        with Count(settings, "calibrating", calibrate.work(len(room.files), requests)) as count:
            found = calibrate.calibrate(world, room, requests, _saying(count))
    if path is not None:
        report_file.write(path, cost.to_json(found))
    output.emit(settings, "bench-calibrate", _figures(found, settings.form == "table"), COST, None)
    return 0


def run_validate(
    settings: Settings, path: str | None, cost_path: str | None, scale: float, requests: int, repeats: int,
    only: str | None, work_dir: str | None,
) -> int:  # fmt: skip
    """Serve each check for real and simulated; exit 1 when one of them disagrees."""
    check(path, requests)
    if repeats < 2:
        raise UsageError(f"{repeats} repeats have no spread", "", "take 2 or more")
    checks = choose(only)
    known = None if cost_path is None else read_cost(cost_path)
    with _furnished(settings, scale, work_dir) as (world, room):
        pacing = (repeats + 1) * len(checks) * calibrate.pace_work(len(room.files))
        work = (
            requests * repeats * len(checks) + pacing + (0 if known else calibrate.work(len(room.files), CALIBRATION))
        )
        with Count(settings, "validating", work) as count:
            prices = known or calibrate.calibrate(world, room, CALIBRATION, _saying(count))
            verdicts = [
                validate.verify(world, room, prices, each, requests, repeats, _saying(count)) for each in checks
            ]
        about = machine.describe(world.directory)
    items = [_item(verdict) for verdict in verdicts]
    if path is not None:
        report_file.write(path, _document(items, about, prices, scale, repeats))
    output.emit(settings, "bench-validate", items, VERDICTS, None)
    off = [verdict.check.name for verdict in verdicts if not verdict.agrees]
    if off:
        raise Disagrees(f"{len(off)} of {len(verdicts)} simulated runs disagree with the real ones", ", ".join(off))
    output.tell(settings, lambda: f"all {len(verdicts)} simulated runs agree with the real ones")
    return 0


def check(path: str | None, requests: int) -> None:
    """What can be told to be wrong before anything is built."""
    if requests < 20:
        raise UsageError(f"{requests} requests say nothing", "", "take 20 or more")
    if path is not None and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UsageError(f"cannot write {path}", "there is no such directory")


def choose(only: str | None) -> list[validate.Check]:
    """The checks of `--only 1,3`, or all."""
    if only is None:
        return list(validate.CHECKS)
    try:
        numbers = [int(word) for word in only.split(",")]
    except ValueError:
        numbers = [0]
    if not all(1 <= number <= len(validate.CHECKS) for number in numbers):
        raise UsageError(f"no checks {only!r}", "", f"they are numbered 1 to {len(validate.CHECKS)}")
    return [validate.CHECKS[number - 1] for number in numbers]


@contextmanager
def _furnished(settings: Settings, scale: float, work_dir: str | None) -> Iterator[tuple[World, Room]]:
    """A world with models in it; models and world are gone afterwards."""
    base = os.path.abspath(work_dir or default_directory(os.environ))
    os.makedirs(base, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="zoo-", dir=base) as directory, World(base) as world:
        with Count(settings, "building models", 1) as count:

            def progress(name: str, done: int, total: int) -> None:
                count.say(f"building {name}, {units.format_size(done)} of {units.format_size(total)}")

            room = calibrate.furnish(world, scale, directory, progress)
        yield world, room


def _saying(count: Count) -> Callable[[str], Watch]:
    def say(name: str) -> Watch:
        count.part(name)
        return count

    return say


def _figures(found: cost.Cost, plain: bool) -> list[Item]:
    """One row a figure; a nested one by its path."""
    items: list[Item] = []
    for name, value in found.to_dict().items():
        parts = value.items() if isinstance(value, dict) and name != "about" else [("", value)]
        for part, figure in parts:
            if name not in ("schema", "models") and not (plain and name == "about"):
                items.append({"figure": f"{name}.{part}" if part else name, "value": figure, "_value": _shown(figure)})
    return items


def _shown(figure: Any) -> str:
    if isinstance(figure, float):
        return f"{figure:.4g}"
    if isinstance(figure, (list, tuple)):
        return ",".join(f"{clients:g}:{times:.2f}x" for clients, times in figure)
    return str(figure)


def _item(verdict: validate.Verdict) -> Item:
    item: Item = verdict.to_dict()

    def mean(name: str) -> float:
        return float(sum(item[name]) / len(item[name]))

    return {
        **item, "_name": item["name"].replace(" ", "-"), "_hits": percent(mean("real_hit_rate")),
        "_simulated_hits": percent(mean("simulated_hit_rate")), "_points": f"{100 * item['points']:+.1f}",
        "_mean": seconds(mean("real_mean")), "_least": seconds(min(item["real_mean"])),
        "_greatest": seconds(max(item["real_mean"])), "_simulated_mean": seconds(mean("simulated_mean")),
        "_off": f"{100 * item['deviation']:+.1f}%", "_pace": f"{mean('paces'):.2f}x",
    }  # fmt: skip


def _document(items: list[Item], about: dict[str, Any], prices: cost.Cost, scale: float, repeats: int) -> str:
    """The verdicts with what they rest on."""
    kept = [{key: value for key, value in item.items() if key[0] != "_"} for item in items]
    whole = {
        "schema": "trims.bench-validate/1", "machine": about, "scale": scale, "repeats": repeats,
        "cost": prices.to_dict(), "items": kept,
    }  # fmt: skip
    return output.to_json(whole) + "\n"
