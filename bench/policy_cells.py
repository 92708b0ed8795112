"""What the policy study runs: catalogues, request streams, budgets and clients, each simulated under every policy.

A cell is one catalogue, workload, budget and number of clients. It is drawn with several seeds; a seed decides which
models are popular and the order of requests, the same for all policies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from trims.residency.policies import POLICIES
from trims.workload import belady, distributions, zoo
from trims.workload.cost import Cost
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.plan import Plan, Stream
from trims.workload.simulator import Setup, simulate
from trims.workload.summary import summarise

SEEDS = (1, 2, 3)
BUDGETS = (0.10, 0.25, 0.50)
STAYS = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
"""Seconds of min_resident that are compared."""
FIGURES = ("hit_rate", "byte_hit_rate", "bytes_loaded", "mean", "p99")
_SIZES, _SCANS = 8, 9
"""Spawn keys of the study's own numbers, apart from those of plans."""

SPREADS = (
    "pareto:alpha=1", "pareto:alpha=2", "pareto:alpha=3", "uniform", "exponential", "weibull:k=0.5", "weibull:k=1.5",
    "weibull:k=5", "zipf:s=0.8", "zipf:s=1", "zipf:s=1.2",
)  # fmt: skip
"""Of the paper, and zipf. Weibull of k = 1 is the exponential one."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Models, and how much is asked of them. scale: bytes of a percentage budget are of all of them."""

    name: str
    models: tuple[ModelSpec, ...]
    requests: int
    clients: tuple[int, ...]
    workloads: tuple[str, ...]


def catalogues(quick: bool = False) -> tuple[Catalogue, ...]:
    """The paper's 37 models, and a thousand of log-normal sizes: median 100 MiB, mean 165 MiB, up to some GiB."""
    paper = tuple(model.spec for model in zoo.paper_models())
    few, many = (60, 200) if quick else (500, 2500)
    tail = ("pareto:alpha=1", "zipf:s=0.8", "zipf:s=1.2", "shift", "scan")
    return (
        Catalogue("paper", paper, few, (1, 8), (*SPREADS, "shift", "scan")),
        Catalogue("tail", lognormal(1000, 100 << 20, 1.0), many, (8,), tail),
    )


def lognormal(count: int, median: int, sigma: float) -> tuple[ModelSpec, ...]:
    """Models of log-normal sizes, the same ones always."""
    u = _rng(0, _SIZES).random((2, count))
    normal = np.sqrt(-2 * np.log1p(-u[0])) * np.cos(2 * np.pi * u[1])  # Box and Muller
    return tuple(ModelSpec(f"m{i}", int(size), 100) for i, size in enumerate(median * np.exp(sigma * normal)))


def draw(catalogue: Catalogue, workload: str, clients: int, seed: int) -> Stream:
    """shift: zipf:s=1, the ranks rotated by a tenth of the models ten times. scan: one in three requests is of a model
    that was never asked for and never will be again, the others as zipf:s=1."""
    models, n = catalogue.models, catalogue.requests
    if workload == "shift":
        spread, step = distributions.parse("zipf:s=1"), max(1, len(models) // 10)
        return Plan(models, spread, 1.0, clients, n, seed=seed, shift_every=n // 10, shift_by=step).stream()
    if workload == "scan":
        return scanned(Plan(models, distributions.parse("zipf:s=1"), 1.0, clients, n, seed=seed).stream(), seed)
    return Plan(models, distributions.parse(workload), 1.0, clients, n, seed=seed).stream()


def scanned(stream: Stream, seed: int) -> Stream:
    """One in three requests replaced by one of a model of its own, as large as one of the stream's by chance."""
    u = _rng(seed, _SCANS).random((2, len(stream)))
    where = np.flatnonzero(u[0] < 1 / 3)
    known = stream.models
    like = (u[1][where] * len(known)).astype(int)
    once = tuple(ModelSpec(f"once-{i}", known[k].nbytes, known[k].tensors) for i, k in enumerate(like))
    model = stream.model.copy()
    model[where] = len(known) + np.arange(len(where))
    return Stream((*known, *once), model, None, stream.clients)


def cells(quick: bool = False) -> Iterator[tuple[Catalogue, str, float, int]]:
    """(catalogue, workload, budget as a part of all bytes, clients)."""
    for catalogue in catalogues(quick):
        for workload in catalogue.workloads:
            for budget in BUDGETS:
                for clients in catalogue.clients:
                    yield catalogue, workload, budget, clients


def run_cell(catalogue: Catalogue, workload: str, budget: float, clients: int, cost: Cost) -> dict[str, Any]:
    """Every policy on every seed; one document: figure -> policy -> one value a seed."""
    nbytes = int(budget * total_bytes(catalogue.models))
    found: dict[str, dict[str, list[float]]] = {figure: {name: [] for name in POLICIES} for figure in FIGURES}
    limits: dict[str, list[float]] = {name: [] for name in ("bound", "byte_bound", "offline", "byte_offline")}
    for seed in SEEDS:
        stream = draw(catalogue, workload, clients, seed)
        top = belady.limits(stream, nbytes)
        for name, value in zip(
            limits, (top.hit_rate, top.byte_hit_rate, top.offline_hit_rate, top.offline_byte_hit_rate), strict=True
        ):
            limits[name].append(round(value, 5))
        for policy in POLICIES:
            for figure, value in measure(stream, Setup(nbytes, policy, cache="cold"), cost).items():
                found[figure][policy].append(value)
    return {
        "catalogue": catalogue.name, "workload": workload, "budget": budget, "clients": clients,
        "limits": limits, "figures": found,
    }  # fmt: skip


def measure(stream: Stream, setup: Setup, cost: Cost) -> dict[str, float]:
    """FIGURES of one run, to six digits."""
    summary = summarise(simulate(stream, setup, cost).outcomes, stream.models)
    return {figure: float(f"{getattr(summary, figure):.6g}") for figure in FIGURES}


# ---- min_resident


def alternating(clients: int, requests: int, seed: int) -> tuple[Stream, int]:
    """Two models of 500 MiB asked for by turns of chance, and a budget that holds one of them."""
    models = (ModelSpec("a", 500 << 20, 100), ModelSpec("b", 500 << 20, 100))
    picked = (_rng(seed, _SCANS).random(requests) < 0.5).astype(np.int32)
    return Stream(models, picked, None, clients), 600 << 20


def stay_cells(quick: bool = False) -> Iterator[tuple[str, Callable[[int], tuple[Stream, int]]]]:
    """(name, seed -> (stream, budget)): the case that min_resident is for, and what it must not spoil."""
    paper = catalogues(quick)[0]
    for clients in (2, 4, 8):
        yield (
            f"two models by turns, {clients} clients",
            lambda seed, clients=clients: alternating(clients, paper.requests, seed),  # type: ignore[misc]
        )
    for workload in ("pareto:alpha=1", "zipf:s=0.8", "uniform"):
        for budget in (0.10, 0.25):
            yield (
                f"37 models, {workload}, {budget:.0%}, 8 clients",
                lambda seed, w=workload, b=budget: (  # type: ignore[misc]
                    draw(paper, w, 8, seed), int(b * total_bytes(paper.models))
                ),
            )  # fmt: skip


def run_stays(name: str, make: Callable[[int], tuple[Stream, int]], cost: Cost) -> dict[str, Any]:
    """mean, p99 and bytes loaded under lru for each of STAYS, one value a seed."""
    found: dict[str, list[list[float]]] = {figure: [[] for _ in STAYS] for figure in ("mean", "p99", "bytes_loaded")}
    for seed in SEEDS:
        stream, budget = make(seed)
        for place, stay in enumerate(STAYS):
            figures = measure(stream, Setup(budget, "lru", min_resident=stay, cache="cold"), cost)
            for figure, values in found.items():
                values[place].append(figures[figure])
    return {"name": name, **found}


def _rng(seed: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(purpose,))))
