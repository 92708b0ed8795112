"""The paper's experiments, run: models built and imported, each alone four ways, then the cells of the map.

After every part the report so far is handed to `keep`, marked partial until nothing is missing; a run that is given an
older report of the same configuration does only what that lacks. What would not fit is refused before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from trims.errors import UsageError
from trims.workload import cells, machine, zoo
from trims.workload import outcomes as rows
from trims.workload.claims import oversubscribed
from trims.workload.distributions import parse
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.paper_room import check, large_models, specs
from trims.workload.paper_set import BUILD, STORE, WAYS, PaperSet, alone_cost, cell_cost
from trims.workload.plan import Plan
from trims.workload.report import Alone, Curve, Key, Report, Times, differences, missing, together
from trims.workload.runner import alone
from trims.workload.setting import Baseline, Setting
from trims.workload.summary import ecdf
from trims.workload.world import World

Keep = Callable[[Report], None]
Watch = Callable[[str, float, float], None]
"""Called with what is done, and how many of how many (about) seconds of work are done."""

T = TypeVar("T")
_POINTS = 60  # of a curve: more cannot be told apart in a picture


def begin(chosen: PaperSet, made: str, directory: str, older: Report | None = None) -> Report:
    """The report to go on with: `older` if given, else an empty one.

    Raises UsageError when `older` has another configuration or machine, NoRoom or NoSpace when the set does not fit.
    """
    check(chosen, directory)
    facts, plain = machine.describe(directory), chosen.configuration()
    if older is None:
        return Report(made, facts, plain, specs(chosen))
    found = differences(older, plain)
    found += [f"{n} is {older.machine.get(n)} there and {facts[n]} here" for n in ("cpu", "cores")
              if older.machine.get(n) != facts[n]]  # fmt: skip
    if found:
        raise UsageError("this report cannot be gone on with", "; ".join(found), "give another --output")
    return older


def run(chosen: PaperSet, report: Report, world: World, models_in: str, watch: Watch, keep: Keep) -> Report:
    """Run what `report` lacks of the set, in `world`, with models built in the directory `models_in`."""
    paper = _Paper(chosen, report, world, watch, keep)
    paper.prepare(models_in)
    for family in ("small", "large"):
        for way in WAYS:
            paper.alone(family, way)
    for key in missing(paper.report, (*chosen.map_keys(), *chosen.other_keys())):
        paper.cell(key)
    paper.keep(replace(paper.report, partial=False))
    return paper.report


class _Paper:
    """One run under way: the report as it grows, and how much of the work is done."""

    def __init__(self, chosen: PaperSet, report: Report, world: World, watch: Watch, keep: Keep) -> None:
        self.chosen, self.report, self.world, self._watch, self._keep = chosen, report, world, watch, keep
        self._setting = Setting(function=chosen.function, cache=chosen.cache)
        self._done, self._total = 0.0, self._estimate()

    def keep(self, report: Report) -> None:
        self.report = report
        self._keep(report)

    def prepare(self, directory: str) -> None:
        """Build and import the models, and say in the report what they have become."""
        chosen = self.chosen
        wanted = [*zoo.paper_models(chosen.scale), *large_models(chosen)]
        nbytes = sum(model.spec.nbytes for model in wanted)
        plain = chosen.function in ("weights", "torch")
        built = self._part(
            nbytes / BUILD,
            lambda progress: zoo.build(
                wanted, directory, seed=chosen.seed, scale=chosen.scale, architectures=not plain, weights_only=plain,
                progress=lambda name, done, total: progress(f"building {name}", done, total),
            ),
        )  # fmt: skip
        self.keep(replace(self.report, models=built))
        self._part(
            nbytes / STORE,
            lambda progress: self.world.import_models(
                built, lambda name, done, total: progress(f"importing {name}", done, total)
            ),
        )

    def alone(self, family: str, way: str) -> None:
        """Ask for each model of a family alone, one way, where the report lacks it."""
        known = {a.model for a in self.report.alone if getattr(a, way) is not None}
        models = [m for m in self._family(family) if m.name not in known]
        if not models:
            return
        repeats = self.chosen.large_repeats if family == "large" else self.chosen.repeats
        found = self._part(
            sum(alone_cost(model, way, repeats) for model in models),
            lambda progress: self._baselines(models, way, repeats, lambda d, t: progress(_WORDS[way], d, t)),
        )
        report, cold = self.report, None
        for name, base in found.items():
            report = report.with_alone(Alone(name, **{way: Times(base.done, base.ready, base.repeats, base.spread)}))
            cold = base.coldness  # one for all of them
        if way == "native_cold":
            # In a cell a file that another client reads at that moment stays in the page cache: no proof, and no fault.
            report = replace(report, coldness=together(report.coldness, cold))
        self.keep(report)

    def cell(self, key: Key) -> None:
        """Measure one cell on every side that it is to have."""
        chosen, small = self.chosen, self._family("small")
        ours = key in chosen.map_keys()
        requests = chosen.requests if ours else chosen.other_requests
        plan = Plan(
            tuple(small), parse(key.distribution), share=key.share, clients=key.clients, requests=requests,
            seed=chosen.seed,
        )  # fmt: skip
        wanted = cells.Wanted(_able(self._setting, small), oversubscribed(small), key.policy, self._sides(key))
        about = f"{key.share:.0%} of the models, {key.clients} client{'s' if key.clients > 1 else ''}"
        cost = cell_cost(small, key.clients, requests, len(wanted.sides))
        sides = list(wanted.sides)

        def measure(progress: Callable[[str, int, int], None]) -> cells.Measured:
            def watching(side: str) -> Callable[[int, int], None]:
                first = sides.index(side)
                return lambda done, total: progress(f"{about}: {side}", first * total + done, len(sides) * total)

            return cells.measure(plan, wanted, self.world, self._native(), watching)

        found = self._part(cost, measure)
        curves = _curves(key, found) if ours and key.share == 1.0 and key.clients in _ends(chosen.clients) else ()
        self.keep(self.report.with_cell(found.cell, curves))

    def _sides(self, key: Key) -> tuple[str, ...]:
        """Native beside trims in the map, and room for all where every model is in play; others are compared alone."""
        if key not in self.chosen.map_keys():
            return ("trims",)
        return (
            ("trims", "native", "unlimited") if key.share == 1.0 or self.chosen.name != "quick" else ("trims", "native")
        )

    def _baselines(
        self, models: Sequence[ModelSpec], way: str, repeats: int, watch: Callable[[int, int], None]
    ) -> dict[str, Baseline]:
        native = way.startswith("native")
        setting = replace(
            self._setting, side="native" if native else "trims", cache="warm" if way == "native_warm" else "cold"
        )
        if native:
            self.world.stop()
            return alone(models, _able(setting, models), self.world, repeats, watch)
        self.world.start(int(1.25 * max(self.world.of(m).nbytes for m in models)) + (1 << 28))
        try:
            return alone(models, _able(setting, models), self.world, repeats, watch, how=way)
        finally:
            self.world.stop()

    def _native(self) -> dict[str, Baseline]:
        found = {a.model: a.native(self.chosen.cache) for a in self.report.alone}
        return {name: Baseline(t.done, t.ready, t.repeats) for name, t in found.items() if t is not None}

    def _family(self, family: str) -> list[ModelSpec]:
        return [model for model in self.report.models if (model.family == "large") == (family == "large")]

    def _estimate(self) -> float:
        """About how many seconds all of it takes."""
        chosen, models = self.chosen, self.report.models
        small = self._family("small")
        total = total_bytes(models) * (1 / BUILD + 1 / STORE)
        known = {(a.model, way) for a in self.report.alone for way in WAYS if getattr(a, way) is not None}
        for model in models:
            repeats = chosen.large_repeats if model.family == "large" else chosen.repeats
            total += sum(alone_cost(model, way, repeats) for way in WAYS if (model.name, way) not in known)
        mapped = set(chosen.map_keys())
        for key in missing(self.report, (*chosen.map_keys(), *chosen.other_keys())):
            requests = chosen.requests if key in mapped else chosen.other_requests
            total += cell_cost(small, key.clients, requests, len(self._sides(key)))
        return total

    def _part(self, cost: float, work: Callable[[Callable[[str, int, int], None]], T]) -> T:
        """Do one part that takes about `cost` seconds; its own progress is told as a share of that."""

        def progress(what: str, done: int, total: int) -> None:
            self._watch(what, self._done + cost * (done / total if total else 1.0), self._total)

        result = work(progress)
        self._done += cost
        return result


_WORDS = {
    "native_cold": "alone, natively, cold", "native_warm": "alone, natively, warm", "hit": "alone, resident",
    "load": "alone, loaded first",
}  # fmt: skip


def _able(setting: Setting, models: Sequence[ModelSpec]) -> Setting:
    """The setting, with what each model can run where not all run the function asked for: large ones have no graph."""
    if setting.function == "onnxruntime" and any(model.runs != "onnxruntime" for model in models):
        return replace(setting, function="auto")
    return setting


def _ends(values: Sequence[int]) -> tuple[int, int]:
    return values[0], values[-1]


def _curves(key: Key, found: cells.Measured) -> tuple[Curve, ...]:
    made = []
    for side, ran in found.runs.items():
        seconds, fractions = ecdf(rows.latency(ran.outcomes[rows.ok(ran.outcomes)]), _POINTS)
        made.append(Curve(side, key.share, key.clients, tuple(seconds.tolist()), tuple(fractions.tolist())))
    return tuple(made)
