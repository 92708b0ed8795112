"""bench paper: from what was asked on the command line to the claims, the map, the report and the pictures.

The report is written, whole, after every part, so whatever ends the command leaves what was measured until then as a
valid report that says it is partial; the run of the same set with `--resume` measures only what that lacks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from trims.errors import UsageError
from trims.workload import paper, paper_set, pictures, report_file
from trims.workload.paper_set import PaperSet
from trims.workload.report import Report, to_csv, to_json
from trims.workload.setting import Setting
from trims.workload.world import World, default_directory
from trims_cli import output, paper_view, times
from trims_cli.parts import Parts
from trims_cli.settings import Settings

T = TypeVar("T", int, float)
RESERVED = "models"  # below the work directory, beside the world's own directories


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags of the command, as typed."""

    quick: bool
    all: bool
    scale: float | None
    function: str
    cache: str
    share: str | None
    clients: str | None
    requests: int | None
    output: str | None
    csv: str | None
    pictures: str | None
    resume: str | None
    work_dir: str | None

    @property
    def path(self) -> str:
        """Where the report goes."""
        return self.output or self.resume or "bench-paper.json"


def run(settings: Settings, asked: Asked) -> int:
    """Measure the set, say it, write it."""
    chosen = _chosen(asked)
    Setting(function=asked.function, cache=asked.cache)  # words are checked before anything is made
    for path in (asked.path, asked.csv):
        if path is not None:
            report_file.check_directory(path)
    if asked.pictures is not None:
        pictures.check()
    measured = _measure(settings, asked, chosen)
    if asked.csv is not None:
        report_file.write(asked.csv, to_csv(measured))
    drawn = pictures.draw(measured, asked.pictures) if asked.pictures is not None else []
    paper_view.show(settings, measured, asked.path, drawn)
    return 0


def _measure(settings: Settings, asked: Asked, chosen: PaperSet) -> Report:
    base = asked.work_dir or default_directory(os.environ)
    older = _older(asked)
    begun = paper.begin(chosen, times.rfc3339(time.time()), base, older)
    kept: list[Report] = []

    def keep(report: Report) -> None:
        report_file.write(asked.path, to_json(report))
        kept[:] = [report]

    try:
        with World(asked.work_dir, keep=asked.work_dir is not None) as world, Parts(settings, "bench-paper") as parts:
            return paper.run(chosen, begun, world, os.path.join(world.directory, RESERVED), parts, keep)
    except BaseException:
        if kept:
            where = paper_view.progress_of(kept[0])
            output.note(f"trims: {asked.path} keeps what was measured ({where}); --resume {asked.path} goes on")
        raise


def _chosen(asked: Asked) -> PaperSet:
    """The set, narrowed as asked. Raises UsageError for what is no share, number or scale."""
    chosen = paper_set.choose(asked.quick, asked.all, asked.scale, asked.function, asked.cache)
    if asked.share is not None:
        chosen = replace(chosen, shares=_numbers(asked.share, "share", _share))
    if asked.clients is not None:
        chosen = replace(chosen, clients=_numbers(asked.clients, "clients", _count))
    if asked.requests is not None:
        chosen = replace(chosen, requests=_count(str(asked.requests)))
    return chosen


def _numbers(text: str, what: str, read: Callable[[str], T]) -> tuple[T, ...]:
    try:
        return tuple(sorted({read(word.strip()) for word in text.split(",")}))
    except ValueError:
        raise UsageError(f"bad {what} {text!r}", "", "write it like 1,4 (clients) or 10%,1.0 (share)") from None


def _share(word: str) -> float:
    value = float(word[:-1]) / 100 if word.endswith("%") else float(word)
    if not 0 < value <= 1:
        raise ValueError
    return value


def _count(word: str) -> int:
    value = int(word)
    if value < 1:
        raise UsageError(f"bad number {word!r}", "it is at least 1")
    return value


def _older(asked: Asked) -> Report | None:
    """The report to go on with. Raises UsageError when a file that is no report would be replaced."""
    if asked.path != asked.resume:
        report_file.check(asked.path)
    return None if asked.resume is None else replace(report_file.read(asked.resume), partial=True)
