"""bench paper: from what was asked on the command line to the claims, the map, the report and the pictures.

The report is written, whole, after every part, so whatever ends the command leaves what was measured until then as a
valid report that says it is partial; the run of the same set with `--resume` measures only what that lacks.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace

from trims.errors import UsageError
from trims.workload import paper, paper_set, pictures, report_file
from trims.workload.paper_set import PaperSet
from trims.workload.report import Report, to_csv, to_json
from trims.workload.setting import Setting
from trims.workload.world import World, default_directory
from trims_cli import output, paper_view, times
from trims_cli.parts import Parts
from trims_cli.settings import Settings

RESERVED = "models"  # below the work directory, beside the world's own directories


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags of the command, as typed."""

    quick: bool
    all: bool
    scale: float | None
    function: str
    cache: str
    output: str
    csv: str | None
    pictures: str | None
    resume: bool
    work_dir: str | None


def run(settings: Settings, asked: Asked) -> int:
    """Measure the set, say it, write it."""
    chosen = paper_set.choose(asked.quick, asked.all, asked.scale, asked.function, asked.cache)
    Setting(function=asked.function, cache=asked.cache)  # words are checked before anything is made
    for path in (asked.output, asked.csv):
        if path is not None:
            report_file.check_directory(path)
    if asked.pictures is not None:
        pictures.check()
    measured = _measure(settings, asked, chosen)
    if asked.csv is not None:
        report_file.write(asked.csv, to_csv(measured))
    drawn = pictures.draw(measured, asked.pictures) if asked.pictures is not None else []
    paper_view.show(settings, measured, asked.output, drawn)
    return 0


def _measure(settings: Settings, asked: Asked, chosen: PaperSet) -> Report:
    base = asked.work_dir or default_directory(os.environ)
    older = _older(asked)
    begun = paper.begin(chosen, times.rfc3339(time.time()), base, older)
    kept: list[Report] = []

    def keep(report: Report) -> None:
        report_file.write(asked.output, to_json(report))
        kept[:] = [report]

    try:
        with World(asked.work_dir, keep=asked.work_dir is not None) as world, Parts(settings, "bench-paper") as parts:
            return paper.run(chosen, begun, world, os.path.join(world.directory, RESERVED), parts, keep)
    except BaseException:
        if kept:
            where = paper_view.progress_of(kept[0])
            output.note(f"trims: {asked.output} keeps what was measured ({where}); --resume goes on with it")
        raise


def _older(asked: Asked) -> Report | None:
    """The report to go on with. Raises UsageError when a file that is no report would be replaced."""
    if not asked.resume:
        report_file.check(asked.output)
        return None
    if not os.path.exists(asked.output):
        raise UsageError("there is nothing to go on with", f"{asked.output} is not there", "leave --resume out")
    return replace(report_file.read(asked.output), partial=True)
