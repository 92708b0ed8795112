"""The options of `trims simulate` as values: workloads, machines, costs. Raises UsageError or BadInput, naming them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trims import units
from trims.errors import BadInput, UsageError
from trims.workload import arrivals, cost, distributions, trace
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.plan import Plan
from trims.workload.simulator import PLACE, Setup
from trims.workload.study import Case
from trims.workload.traced import Trace

MOST = 100_000
"""Models of a made-up zoo: beyond it the machine's own tables are what is measured."""


DEFAULT_BUDGET = "50%"


@dataclass(frozen=True, slots=True)
class Workload:
    """The options that say what is asked for."""

    zoo: str | None
    models: int | None
    median: str
    sigma: float
    trace_in: str | None
    distribution: str
    share: str
    clients: str
    requests: int
    rate: str | None
    shift_every: int
    seed: int


@dataclass(frozen=True, slots=True)
class MachineAsked:
    """The options that say what serves it."""

    budget: str | None
    policy: str
    min_resident: str
    ttl: str
    cache: str
    cost: str | None
    native: bool


def read_cost(path: str | None) -> cost.Cost:
    """The cost file's figures, or the assumed ones."""
    return cost.ASSUMED if path is None else cost.from_json(read_text(path), path)


def read_text(path: str) -> str:
    """A small text file. Raises BadInput that names it."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError:
        raise BadInput(f"{path} cannot be read", "it is no text") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read", error.strerror or "") from None


def read_policies(text: str) -> list[str]:
    """Names of policies, each once, in the order given."""
    from trims.residency.policies import POLICIES, make

    if text == "all":
        return list(POLICIES)
    return list(dict.fromkeys(make(name.strip()).name for name in text.split(",")))


def read_list(text: str, what: str, number: Callable[[str], float]) -> list[Any]:
    """Numbers with commas between them. Raises UsageError."""
    try:
        return [number(part.strip()) for part in text.split(",")]
    except ValueError:
        example = "10%,50%,100%" if number is read_share else "1,5,10"
        raise UsageError(f"bad {what} {text!r}", "", f"write it like {example}") from None


def read_share(text: str) -> float:
    """0.5, or 50%."""
    return round(float(text[:-1]) / 100, 9) if text.endswith("%") else float(text)


def read_arrival(text: str | None) -> arrivals.Arrival:
    """A number is a Poisson rate."""
    if text is None:
        return arrivals.CLOSED
    try:
        return arrivals.Arrival("poisson", (("rate", float(text)),))
    except ValueError:
        return arrivals.parse(text)


def read_models(workload: Workload) -> tuple[ModelSpec, ...]:
    """The models of --zoo or --models."""
    from trims.workload import zoo

    if workload.models is not None:
        if workload.zoo is not None:
            raise UsageError("--zoo and --models exclude each other")
        return made_up(workload.models, units.parse_size(workload.median), workload.sigma, workload.seed)
    if workload.zoo not in (None, "paper", "all"):
        raise UsageError(f"no zoo {workload.zoo!r}", "", "known: paper, all")
    found = [*zoo.paper_models(), *(zoo.large_models() if workload.zoo == "all" else ())]
    return tuple(model.spec for model in found)


def made_up(count: int, median: int, sigma: float, seed: int) -> tuple[ModelSpec, ...]:
    """So many models of log-normal sizes: exp(ln median + sigma z), z standard normal by Box and Muller, seeded."""
    for name, value, least, most in (
        ("--models", count, 1, MOST),
        ("--median", median, 1, 1 << 50),
        ("--sigma", sigma, 0, 10),
        ("--seed", seed, 0, 1 << 63),
    ):
        if not least <= value <= most:
            raise UsageError(f"{name} {value} is not possible", f"it is from {least} to {most}")
    uniform = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(3,)))).random((2, count))
    normal = np.sqrt(-2 * np.log1p(-uniform[0])) * np.cos(2 * math.pi * uniform[1])
    nbytes = np.minimum(np.exp(math.log(median) + sigma * normal), 2.0**50).astype(np.int64)
    return tuple(ModelSpec(f"model-{i}", max(1, int(size)), 100, family="own") for i, size in enumerate(nbytes))


def read_cases(workload: Workload, machine: MachineAsked, prices: cost.Cost) -> Iterator[Case]:
    """One a combination of share and clients."""
    clients = read_list(workload.clients, "clients", int)
    if workload.trace_in is not None:
        found = _recorded(workload.trace_in)
        asked = setup(_as_recorded(machine, found), found.stream().models)
        closed = workload.clients != "1"
        for count in clients if closed else [None]:
            yield Case(found.stream(closed=closed, clients=count), asked, prices)
        return
    models, spread = read_models(workload), distributions.parse(workload.distribution)
    arrival, asked = read_arrival(workload.rate), setup(machine, models)
    for share in read_list(workload.share, "share", read_share):
        for count in clients:
            plan = Plan(models, spread, share, count, workload.requests, arrival, workload.seed, workload.shift_every)
            yield Case(
                plan.stream(), asked, prices, share=share, distribution=str(spread), seed=workload.seed,
                arrival=str(arrival), rate=arrival.rate, models=models,
            )  # fmt: skip


def _recorded(path: str) -> Trace:
    """A recorded trace that holds a request: asked again at its times; by --clients in a closed loop."""
    try:
        with open(path, "rb") as file:
            found = trace.read(file, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read", error.strerror or "") from None
    if not len(found):
        raise BadInput(f"{path} cannot be simulated", "no request is recorded in it")
    return found


def setup(machine: MachineAsked, models: tuple[ModelSpec, ...]) -> Setup:
    """The machine that was asked for; a percentage is of all models, not only of those in play."""
    if machine.cache not in ("warm", "cold"):
        raise UsageError(f"no page cache {machine.cache!r}", "", "known: warm, cold")
    return Setup(
        max(1, units.parse_size(machine.budget or DEFAULT_BUDGET, total_bytes(models))),
        ttl=units.parse_duration(machine.ttl),
        min_resident=units.parse_duration(machine.min_resident),
        cache=machine.cache,
    )


def _as_recorded(machine: MachineAsked, found: Trace) -> MachineAsked:
    """With the budget of the manager that was recorded, unless one was asked for."""
    budgets = found.about.get("budgets")
    recorded = budgets.get(PLACE) if isinstance(budgets, dict) else None
    if machine.budget is not None or not isinstance(recorded, int) or recorded < 1:
        return machine
    return replace(machine, budget=str(recorded))
