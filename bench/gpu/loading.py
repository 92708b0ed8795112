"""Models of 0.1, 1 and 15 GiB through trims: from disk and host to the GPU beside its limits, and attached there."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from bench.bench_warm import Memory, drop
from bench.gpu import program_copies
from bench.gpu.peers import ask, peers
from bench.gpu.place import GIB, MIB, Place
from bench.gpu.serving import Client, GpuWorld
from bench.harness import Figure, Row, as_json, show

FIRSTS, NEXTS = 10, 100
"""Attaches that are the first of their process, and that are not."""
LONG = 75.0
"""Seconds of an item after which it begins no further round: what it has is enough then."""
REGISTERING = 0.4
"""Seconds for each GiB that a worker is given to register a region after its first load: four times what it takes."""


def _model(place: Place, nbytes: int, rounds: int, threads: tuple[int, ...] = (2, 8)) -> dict[str, Any]:
    end = time.monotonic() + LONG
    with GpuWorld(place, nbytes + nbytes // 16 + 256 * MIB) as world:
        path = world.put("m", nbytes)
        if nbytes == place.large:
            path.unlink()  # the store has its own
        (container,) = (world.store / "containers").glob("*/*.h5")
        world.start()
        size = show(nbytes, "B")
        rows = [_from_disk(world, container, nbytes, rounds, end, size, threads)]
        rows += _from_host(world, nbytes, rounds, size)
        rows += _attach(world, size, nbytes, 2 if place.simulated else FIRSTS, 3 if place.simulated else NEXTS)
    return {"nbytes": nbytes, "rows": [as_json(row) for row in rows]}


def _from_disk(
    world: GpuWorld, container: Path, nbytes: int, rounds: int, end: float, size: str, threads: tuple[int, ...]
) -> Row:
    """Cold, taking turns with raw reads of the same file past the page cache, in so many threads."""
    target = Memory(container.stat().st_size)
    ours: list[float] = []
    raw: dict[int, list[float]] = {number: [] for number in threads}
    for n in range(rounds):
        if n and time.monotonic() > end:
            break
        if n:
            world.evict("m")
        drop(container)
        ours.append(nbytes / world.warm("m"))
        for number, rates in raw.items():
            begun = time.perf_counter()
            target.read(container, direct=True, threads=number)
            rates.append(target.nbytes / (time.perf_counter() - begun))
    target.close()
    beside = {f"raw O_DIRECT, {number} threads": Figure.of(rates, "B/s") for number, rates in raw.items()}
    figure, best = Figure.of(ours, "B/s"), max(f.p50 for f in beside.values())
    what = f"disk to GPU, {size}, cold, a new worker the first time"
    return Row(what, figure, beside, "0.8 of raw", figure.p50 >= 0.8 * best)


def _from_host(world: GpuWorld, nbytes: int, rounds: int, size: str) -> list[Row]:
    with peers(world.place) as start:
        peak = Figure.of(
            ask(start(), program_copies.peak, min(nbytes // MIB * MIB, GIB), 3 if rounds < 3 else 10), "B/s"
        )
    world.warm("m", "host")
    rates = []
    for n in range(rounds + 1):
        world.evict("m")
        rates.append(nbytes / world.warm("m"))
        if not n:
            time.sleep(0.1 if world.place.simulated else 1.0 + REGISTERING * nbytes / GIB)
    first, later = Figure.single(rates[0], "B/s"), Figure.of(rates[1:], "B/s")
    reads = world.place.device["reads_registered"]
    return [
        Row(f"host to GPU, {size}, through the buffers", first, {"pinned peak": peak}),
        Row(
            f"host to GPU, {size}, {'registered' if reads else 'again'}", later, {"pinned peak": peak},
            "0.9 of the peak", max(first.p50, later.p50) >= 0.9 * peak.p50,
        ),
    ]  # fmt: skip


def _attach(world: GpuWorld, size: str, nbytes: int, firsts: int, nexts: int) -> list[Row]:
    opened, following = [], []
    for n in range(firsts):
        with Client(world.env, "trims.client.handle") as client:
            driver = client.ask("driver")["seconds"]
            opened.append({"driver": driver, **client.ask("open", ref="m", place=world.gpu)})
            if n == firsts - 1:
                following = client.ask("again", ref="m", place=world.gpu, times=nexts)["seconds"]
    apart = Figure.of([one["seconds"] - one["context"] for one in opened])
    parts = {"of it, importing and mapping": Figure.of([one["attach"] for one in opened]),
             "not in it, the driver: its bindings, cuInit": Figure.of([one["driver"] for one in opened]),
             "not in it, the context": Figure.of([one["context"] for one in opened])}  # fmt: skip
    target = "20 ms" if nbytes >= 8 * GIB else ""
    return [
        Row(f"attach {size}, the first of a process, driver and context apart", apart, parts, target,
            apart.p50 <= 0.02 if target else None, comparable=False),
        Row(f"attach {size}, a later one", Figure.of(following)),
    ]  # fmt: skip


def model_small(place: Place) -> dict[str, Any]:
    return _model(place, place.small, place.rounds)


def model_middle(place: Place) -> dict[str, Any]:
    return _model(place, place.middle, place.rounds)


def model_large(place: Place) -> dict[str, Any]:
    return _model(place, place.large, 1 if place.simulated else 3, threads=(8,))


ITEMS = {f.__name__: f for f in (model_small, model_middle, model_large)}
SECONDS = {"model_large": 150.0}
