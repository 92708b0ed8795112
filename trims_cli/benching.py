"""bench workload: from what was asked on the command line to a report, cell by cell.

The report is written, whole, after every baseline and every cell, so whatever ends the command leaves what was measured
until then as a valid report that says it is partial. `--resume` takes such a report, refuses it when it was made under
another configuration, and runs the cells it lacks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from trims import units
from trims.errors import PartialFailure, UsageError
from trims.residency import policies
from trims.workload import arrivals, distributions, machine, report, report_file, runner
from trims.workload.cells import Measured, Wanted, measure
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.plan import Plan, Stream
from trims.workload.setting import Baseline, Run
from trims.workload.summary import ecdf
from trims.workload.world import World
from trims_cli import bench_files, bench_models, bench_view, boundary, output, times
from trims_cli.bench_asked import Asked, check_writable, counts, shares
from trims_cli.counting import Count
from trims_cli.settings import Settings

REPEATS = 3
"""Requests of each model alone that a speed-up is counted from."""


def run(settings: Settings, asked: Asked) -> int:
    """Measure what was asked for, say it, write it."""
    bench = _Bench(settings, asked)
    try:
        with World(asked.work_dir, asked.keep) as world:
            bench.measure(world)
    except boundary.Ended:
        bench.interrupted()
        raise
    return bench.conclude()


class _Bench:
    """One run of the command. Raises UsageError for what cannot be before anything is built."""

    def __init__(self, settings: Settings, asked: Asked) -> None:
        self._settings, self._asked = settings, asked
        self._shares, self._clients = shares(asked.share), counts(asked.clients or "1")
        self._distribution = distributions.parse(asked.distribution)
        self._arrival = arrivals.parse(asked.arrival or "closed")
        policies.make(asked.policy)
        self._min_resident = units.parse_duration(asked.min_resident)
        if asked.side not in ("both", "trims"):
            raise UsageError(f"unknown side {asked.side!r}", "", "use both or trims")
        if asked.side == "trims" and asked.picture:
            raise UsageError("--picture needs both sides", "a map shows trims over native", "leave --side out")
        for path in (asked.output, asked.csv, asked.picture, asked.trace):
            check_writable(path)
        self._path = asked.output or asked.resume
        self._report: report.Report | None = None
        self._notes: list[str] = []
        self._reasons: list[str] = []
        self._events: list[Any] = []

    # ---- measuring

    def measure(self, world: World) -> None:
        models, recorded = bench_models.choose(self._settings, self._asked)
        budget = _budget(self._asked.budget, models)
        self._begin(models, budget, recorded, world)
        if recorded is not None:
            self._shares = [1.0]
            self._clients = counts(asked) if (asked := self._asked.clients) else [recorded.clients]
        plans = [plan for plan in self._plans(models) if self._lacks(plan)]
        played = _played(plans, recorded)
        for model in played:
            runner.function_of(model, self._asked.setting)
            runner.check_budget(model, model.nbytes, budget)
        with Count(self._settings, "workload", self._work(plans, played, recorded)) as count:
            world.import_models(played, lambda name, done, total: count.say(f"importing {name}"))
            alone = self._alone(played, world, count)
            for number, plan in enumerate(plans, 1):
                self._cell(plan, budget, world, alone, recorded, count, f"cell {number} of {len(plans)}")
        self._save(partial=False)

    def _begin(self, models: Sequence[ModelSpec], budget: int, recorded: Stream | None, world: World) -> None:
        about = self._configuration(models, budget, recorded)
        if self._asked.resume is not None:
            found = report_file.read(self._asked.resume)
            here = machine.describe(world.directory)
            differs = report.differences(found, about) + [
                f"{name} is {found.machine.get(name)} there and {here[name]} here"
                for name in ("cpu", "cores")
                if found.machine.get(name) != here[name]
            ]
            if differs:
                raise UsageError(
                    f"{self._asked.resume} cannot be gone on with", "; ".join(differs[:4]),
                    "give the same flags, or begin another report",
                )  # fmt: skip
            self._report = found
            self._save(partial=True)
            return
        self._report = report.Report(
            times.rfc3339(time.time()),
            machine.describe(world.directory),
            about,
            tuple(_without_file(model) for model in models),
        )
        self._save(partial=True)

    def _configuration(self, models: Sequence[ModelSpec], budget: int, recorded: Stream | None) -> dict[str, Any]:
        asked = self._asked
        sides = ["trims", *(["native"] if asked.side == "both" else []), *(["unlimited"] if asked.unlimited else [])]
        return {
            "requests": asked.requests if recorded is None else len(recorded),
            "arrival": "recorded" if recorded is not None and recorded.at is not None else str(self._arrival),
            "seed": asked.seed,
            "shift_every": asked.shift_every,
            "policy": asked.policy,
            "min_resident": self._min_resident,
            "budget": budget,
            "scale": asked.scale,
            "sides": sides,
            "trace": None if asked.trace_in is None else os.path.basename(asked.trace_in),
            **{k: v for k, v in asked.setting.to_dict().items() if k not in ("side", "timeout")},
            "models": len(models),
            "model_bytes": total_bytes(models),
        }

    def _plans(self, models: tuple[ModelSpec, ...]) -> list[Plan]:
        asked = self._asked
        return [
            Plan(
                models, self._distribution, share, clients, asked.requests, self._arrival, asked.seed, asked.shift_every
            )
            for share in self._shares
            for clients in self._clients
        ]

    def _lacks(self, plan: Plan) -> bool:
        wanted = report.Key(plan.share, plan.clients, self._named(plan), self._asked.policy)
        return bool(report.missing(self._kept, [wanted]))

    def _named(self, plan: Plan) -> str:
        """What the cell says of its distribution: a recorded trace is one of its own."""
        name = self._asked.trace_in
        return str(plan.distribution) if name is None else f"trace:{os.path.basename(name)}"

    @property
    def _kept(self) -> report.Report:
        assert self._report is not None
        return self._report

    def _sides(self) -> tuple[str, ...]:
        return tuple(self._kept.configuration["sides"])

    def _work(self, plans: Sequence[Plan], played: Sequence[ModelSpec], recorded: Stream | None) -> int:
        """Requests in all."""
        each = self._asked.requests if recorded is None else len(recorded)
        baselines = REPEATS * len(played) if "native" in self._sides() else 0
        return baselines + each * len(self._sides()) * len(plans)

    def _alone(self, models: Sequence[ModelSpec], world: World, count: Count) -> dict[str, Baseline]:
        """Native times of each model alone: what the report has, and what it lacks."""
        if "native" not in self._sides():
            return {}
        cache = self._asked.setting.cache
        kept = ((alone.model, alone.native(cache)) for alone in self._kept.alone)
        known = {name: Baseline(t.done, t.ready, t.repeats) for name, t in kept if t is not None}
        lacking = [model for model in models if model.name not in known]
        count.part("each model alone, natively")
        found = runner.alone(lacking, self._asked.setting.on("native"), world, REPEATS, count) if lacking else {}
        for name, baseline in found.items():
            measured = report.Times(baseline.done, baseline.ready, baseline.repeats)
            self._report = self._kept.with_alone(report.Alone(name, **{f"native_{cache}": measured}))
        for baseline in list(found.values())[:1]:  # one look at the page cache for all of them
            self._report = replace(self._kept, coldness=report.together(self._kept.coldness, baseline.coldness))
        self._save(partial=True)
        return known | found

    def _cell(
        self,
        plan: Plan,
        budget: int,
        world: World,
        alone: Mapping[str, Baseline],
        recorded: Stream | None,
        count: Count,
        label: str,
    ) -> None:
        asked = self._asked
        wanted = Wanted(asked.setting, budget, asked.policy, self._sides(), self._min_resident)

        def watching(side: str) -> runner.Watch:
            count.part(f"{label}, {side}")
            return count

        stream = None if recorded is None else replace(recorded, clients=plan.clients)
        found = measure(plan, wanted, world, alone, watching, stream, self._ending(world, label))
        self._keep(replace(found, cell=replace(found.cell, distribution=self._named(plan))))

    def _keep(self, found: Measured) -> None:
        cell = found.cell
        curves = []
        for side, done in found.runs.items():
            served = done.outcomes[done.outcomes["how"] != 4]
            seconds, fractions = ecdf(served["done"] - served["asked"])
            curves.append(report.Curve(side, cell.share, cell.clients, tuple(seconds), tuple(fractions)))
            self._reasons += [f"{side}, request {request}: {why}" for request, why in done.reasons.items()]
        kept = self._kept.with_cell(cell, curves)
        for done in found.runs.values():
            kept = replace(kept, coldness=report.together(kept.coldness, done.coldness))
        self._report = kept
        self._notes += [note for note in found.notes if note not in self._notes]
        self._save(partial=True)

    def _ending(self, world: World, label: str) -> Any:
        if self._asked.trace is None:
            return None
        from trims_cli import bench_trace

        def ending(side: str, done: Run) -> None:
            self._events += bench_trace.events(world, side, done, label)

        return ending

    # ---- what is left of it

    def _save(self, partial: bool) -> None:
        self._report = replace(self._kept, partial=partial)
        for path, text in ((self._path, report.to_json), (self._asked.csv, report.to_csv)):
            if path is not None:
                report_file.write(path, text(self._kept))

    def interrupted(self) -> None:
        """Say what is kept."""
        if self._report is not None and self._path is not None:
            kept = f"{len(self._report.cells)} of {len(self._shares) * len(self._clients)} cells are in {self._path}"
            output.note(f"trims: ended early: {kept}; go on with --resume {self._path}")

    def conclude(self) -> int:
        """The trace, the pictures, the table; what was odd."""
        if self._asked.trace is not None:
            from trims_cli import bench_trace

            bench_trace.write(self._events, self._asked.trace)
        if self._asked.picture is not None:
            bench_files.draw(self._kept, self._asked.picture)
        bench_view.show(self._settings, self._kept)
        for note in self._notes if not self._settings.quiet else ():
            output.note(f"trims: {note}")
        cold = self._kept.coldness
        if cold is not None and cold.cache == "cold":
            looks = f"cold: before each of {cold.looks} requests {cold.mean:.1%}"
            text = f"{looks} of the model's file was in the page cache, {cold.most:.1%} at most"
            output.tell(self._settings, lambda: text)
        if self._reasons:
            for reason in self._reasons[:3]:
                boundary.say(f"trims: {reason}")
            raise PartialFailure(f"{len(self._reasons)} requests failed", self._reasons[0])
        return 0


def _budget(text: str, models: Sequence[ModelSpec]) -> int:
    return units.parse_size(text, total_bytes(models))


def _played(plans: Sequence[Plan], recorded: Stream | None) -> list[ModelSpec]:
    """The models that any of the cells asks for, each once."""
    if recorded is not None:
        return list(recorded.models)
    return list({model.name: model for plan in plans for model in plan.in_play()}.values())


def _without_file(model: ModelSpec) -> ModelSpec:
    """The model without the name of a file, which is the machine's business."""
    return replace(model, file="")
