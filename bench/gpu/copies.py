"""The limits of this machine: copies to the GPU from every kind of host memory, calls of the driver, contexts."""

from __future__ import annotations

from typing import Any

from bench.gpu import program_copies
from bench.gpu.peers import ask, peers, used
from bench.gpu.place import GIB, MIB, Place
from bench.harness import Figure, Row, as_json, show

ATTACH = ("reserve", "import", "map", "allow", "access")
"""The calls that an attach makes for each slab."""


def copies(place: Place) -> dict[str, Any]:
    sizes = [MIB, 8 * MIB] if place.simulated else [size for size in (64 * MIB, 256 * MIB, GIB) if size <= place.middle]
    with peers(place) as start:
        found = ask(start(), program_copies.rates, sizes, 2 if place.simulated else 10)
    registering = found.pop("registering")
    rows = []
    for size, kinds in found.items():
        figures = {kind: Figure.of(rates, "B/s") for kind, rates in kinds.items()}
        pinned = figures.pop("pinned")
        rows.append(
            Row(f"pinned host memory to the GPU, {show(int(size), 'B')} at once", pinned, figures, comparable=False)
        )
    registered = Figure.single(registering["rate"], "B/s")
    rows.append(Row("registering a sealed memfd that is mapped for reading", registered))
    notes = [f"registering failed: {registering['error']}"] if registering["error"] else []
    return {"rows": [as_json(row) for row in rows if row.trims is not registered or not notes], "notes": notes}


def calls(place: Place) -> dict[str, Any]:
    rows = []
    for size in [2 * MIB] if place.simulated else [2 * MIB, 64 * MIB, 2 * GIB]:
        if size > place.large:
            break
        with peers(place) as start:
            found = ask(start(), program_copies.calls, size, 3 if place.simulated else 50)
        together = [sum(times) for times in zip(*(found[name] for name in ATTACH), strict=True)]
        beside = {name: Figure.of(seconds) for name, seconds in found.items()}
        what = f"the calls of an attach for a slab of {show(size, 'B')}"
        rows.append(Row(what, Figure.of(together), beside, comparable=False))
    return {"rows": [as_json(row) for row in rows]}


def contexts(place: Place) -> dict[str, Any]:
    """What a process pays for its first use of the GPU, whoever's weights it uses."""
    seconds, nbytes = [], []
    for _ in range(2 if place.simulated else 5):
        with peers(place) as start:
            watch, peer = start(), start()
            peer.gpus()
            before = used(watch, place)
            seconds.append(ask(peer, program_copies.context))
            nbytes.append(float(used(watch, place) - before))
    rows = [
        Row("a context: seconds", Figure.of(seconds)),
        Row("a context: memory of the GPU", Figure.of(nbytes, "B")),
    ]
    return {"rows": [as_json(row) for row in rows]}


ITEMS = {f.__name__: f for f in (copies, calls, contexts)}
