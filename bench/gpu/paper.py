"""The paper's experiments on the GPU, small: each model alone, natively and through trims, and the map (Figure 11).

A request gets a model's weights and reads every byte of them on the GPU once. Its process is warm: libraries loaded, a
context made. Evicted models stay in host memory, as in the paper; the GPU has room for half of the small models' bytes.
Natively the file is read and copied each time (bench.gpu.loaders). The sizes are the paper's times a scale.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from bench import zoo as files
from bench.gpu.place import GIB, MIB, Failed, Place, Skip
from bench.gpu.serving import Client, GpuWorld
from bench.gpu.testing import OUT
from bench.harness import Figure, Row, as_json
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.store import open_store
from trims.workload import zoo
from trims.workload.distributions import parse
from trims.workload.models import ModelSpec, total_bytes
from trims.workload.paper_set import PARETO
from trims.workload.plan import Plan
from trims.workload.summary import geometric_mean

WAYS = ("native_cold", "native_warm", "hit", "load")
"""How each model is asked for alone: natively from disk and from page cache; on the GPU already, and from the host."""
SHARES, CLIENTS, REQUESTS = (0.2, 0.6, 1.0), (1, 4), 40


def built(place: Place, large: bool) -> tuple[ModelSpec, ...]:
    wanted = [*zoo.paper_models(place.scale), *(zoo.large_models(place.scale) if large else [])]
    return zoo.build(wanted, files.ZOO / "gpu-paper", scale=place.scale, weights_only=True)


class Served:
    """The models in a world whose host has room for all, and its GPU for what it is told; by ref."""

    def __init__(self, place: Place, models: tuple[ModelSpec, ...], gpu_budget: int | None) -> None:
        self.place, self.models = place, models
        host = total_bytes(models) * 9 // 8 + len(models) * 4 * MIB + GIB // 4
        self.world = GpuWorld(place, host, gpu_budget, "--policy", "lru")
        self.checksums: dict[str, int] = {}
        self.engine = ""

    def __enter__(self) -> Served:
        self.world.__enter__()
        try:
            store = open_store(str(self.world.store))
            for n, model in enumerate(self.models):
                with open_source(model.file) as source:
                    import_model(store, source, f"m{n}:latest")
            self.world.start()
            for n in range(len(self.models)):
                self.world.warm(f"m{n}", "host")
        except BaseException:
            self.world.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.world.__exit__()

    def client(self) -> Client:
        made = Client(self.world.env, "trims.client.handle", "bench.gpu.loaders")
        self.engine = str(made.ask("prepare")["engine"])
        return made

    def ask(self, client: Client, model: ModelSpec, side: str, cold: bool = False) -> dict[str, Any]:
        """One request. Raises Failed when its result is not the one that this model always has."""
        ref = f"m{self.models.index(model)}"
        found = client.ask("request", side=side, ref=ref, place=self.world.gpu, path=model.file, cold=cold)
        if self.checksums.setdefault(model.name, found["total"]) != found["total"]:
            raise Failed(f"{model.name} has two results", {"side": side, "found": found, "known": self.checksums})
        return found


def alone(place: Place) -> dict[str, Any]:
    models = built(place, large=True)
    repeats = 1 if place.simulated else 3
    times: dict[str, dict[str, float]] = {model.name: {} for model in models}
    with Served(place, models, None) as served, served.client() as client:
        for model in models:
            ref = f"m{models.index(model)}"
            for way in WAYS:
                seconds = []
                for _ in range(repeats):
                    if way == "load":
                        served.world.evict(ref, wait=True)
                    elif way == "hit":
                        served.world.warm(ref)
                    side = "native" if way.startswith("native") else "trims"
                    found = served.ask(client, model, side, way == "native_cold")
                    if side == "trims" and found["how"] != ("hit" if way == "hit" else "loaded"):
                        raise Failed(f"{model.name} was to be a {way}", found)
                    seconds.append(found["seconds"])
                times[model.name][way] = median(seconds)
            served.world.evict(ref, wait=True)
    rows = [row for family in ("small", "large") for row in _gains(family, models, times)]
    told = [{"name": m.name, "family": m.family, "nbytes": m.nbytes, **times[m.name]} for m in models]
    return {"scale": place.scale, "engine": served.engine, "models": told, "rows": [as_json(row) for row in rows]}


def _gains(family: str, models: tuple[ModelSpec, ...], times: dict[str, dict[str, float]]) -> list[Row]:
    """How many times as fast: the geometric mean over models, and the most."""
    own = [times[model.name] for model in models if model.family == family]
    paper = {"small": ("up to 24x", 24.0), "large": ("up to 210x", 210.0)}[family]
    rows = []
    for native, ours in (("native_cold", "hit"), ("native_warm", "hit"), ("native_cold", "load")):
        gains = [one[native] / one[ours] for one in own]
        first = (native, ours) == ("native_cold", "hit")
        rows.append(
            Row(
                f"{len(own)} {family} models alone: {native} over {ours}, geometric mean",
                Figure.single(geometric_mean(gains), "x"), {"the most of them": Figure.single(max(gains), "x")},
                f"the paper: {paper[0]}" if first else "", max(gains) >= paper[1] if first else None, comparable=False,
            )
        )  # fmt: skip
    return rows


def _known(place: Place) -> dict[str, dict[str, float]]:
    """The times alone that this run has kept. Raises Skip when it has not."""
    path = Path(os.environ[OUT], "paper.json")
    kept = json.loads(path.read_text(encoding="utf-8"))["items"] if path.exists() else {}
    result = kept.get("alone", {}).get("result", {})
    if result.get("scale") != place.scale or "models" not in result:
        raise Skip("needs the times of paper:alone")
    return {model["name"]: model for model in result["models"]}


def figure_11(place: Place) -> dict[str, Any]:
    known, models = _known(place), built(place, large=False)
    shares, requests = (SHARES[::2], 6) if place.simulated else (SHARES, REQUESTS)
    cells = []
    with Served(place, models, max(total_bytes(models) // 2, 24 * MIB)) as served, ExitStack() as stack:
        clients = [stack.enter_context(served.client()) for _ in range(max(CLIENTS))]
        for count in CLIENTS:
            for share in shares:
                served.world.request("evict", place=served.world.gpu)
                stream = Plan(models, parse(PARETO), share, requests=requests).stream()
                asked = [stream.models[n] for n in stream.model]
                found = _serve(served, clients[:count], asked)
                cells.append(_cell(share, count, asked, found, known))
    rows = [
        Row(
            f"{cell['clients']} client{'s' if cell['clients'] > 1 else ''}, {cell['share']:.0%} of the models in play",
            Figure.single(cell["cold"], "x"), {"over native with a warm page cache": Figure.single(cell["warm"], "x")},
            comparable=False,
        )
        for cell in cells
    ]  # fmt: skip
    note = f"geometric mean of each request's speed-up over its model natively alone; {requests} requests a cell"
    return {"scale": place.scale, "cells": cells, "rows": [as_json(row) for row in rows], "notes": [note]}


def _serve(served: Served, clients: list[Client], asked: list[ModelSpec]) -> list[dict[str, Any]]:
    """The answers to all requests, in their order; each client takes the next when it is free."""
    answers: list[dict[str, Any]] = [{} for _ in asked]
    numbers, lock, errors = iter(range(len(asked))), threading.Lock(), []

    def work(client: Client) -> None:
        while not errors:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            try:
                answers[number] = served.ask(client, asked[number], "trims")
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return answers


def _cell(
    share: float, clients: int, asked: list[ModelSpec], found: list[dict[str, Any]], known: dict[str, dict[str, float]]
) -> dict[str, Any]:
    over = {
        way: geometric_mean([known[m.name][way] / one["seconds"] for m, one in zip(asked, found, strict=True)])
        for way in ("native_cold", "native_warm")
    }
    hits = sum(one["how"] == "hit" for one in found)
    return {
        "share": share, "clients": clients, "requests": len(asked), "hits": hits, "cold": over["native_cold"],
        "warm": over["native_warm"], "seconds": [one["seconds"] for one in found],
    }  # fmt: skip


ITEMS = {"alone": alone, "figure_11": figure_11}
SECONDS = {"alone": 130.0, "figure_11": 90.0}
