"""Many processes with one model at once: how long they take to attach, and what they take of the GPU's memory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench import zoo
from bench.gpu.place import GIB, Place
from bench.gpu.serving import Client, GpuWorld, serving
from bench.harness import Figure, Row, as_json, show
from trims.devices import drivers

CONTEXT = 3 * GIB // 4
"""Bytes that a context is taken to need at most, when it is looked whether there is room for so many."""


def clients(place: Place) -> dict[str, Any]:
    rows, notes = [], []
    with serving(place, place.middle) as world:
        path = str(zoo.synthetic(place.middle))
        for count in (1, 2) if place.simulated else (1, 2, 4, 8, 16, 32):
            free = place.device["nbytes"] - world.used()
            if not place.simulated and count * CONTEXT > free:
                notes.append(f"no room for {count} contexts")
                break
            copies = place.simulated or count * (CONTEXT + place.middle) < free
            rows += _together(world, count, path if copies else "")
            if not copies:
                notes.append(f"no room for {count} native copies")
    return {"nbytes": place.middle, "rows": [as_json(row) for row in rows], "notes": notes}


def _together(world: GpuWorld, count: int, path: str) -> list[Row]:
    """`count` processes, each with a context before anything is measured; all told before any is heard."""
    driver = drivers.find(world.env)
    with ExitStack() as stack:
        all_ = [
            stack.enter_context(Client(world.env, "trims.client.handle", "bench.gpu.loaders")) for _ in range(count)
        ]
        _all(all_, "context")
        level = driver.usage(world.place.uuid).used
        opened = _all(all_, "open", ref="m", place=world.gpu)
        shared = driver.usage(world.place.uuid).used - level
        _all(all_, "close")
        beside = {}
        if path:
            taken = Figure.of([one["seconds"] for one in _all(all_, "native", way="copy", path=path)])
            own = driver.usage(world.place.uuid).used - level
            beside = {"a native copy each": Figure.single(own, "B"), "copying, seconds": taken}
    size = show(world.place.middle, "B")
    each = "client" if count == 1 else "clients at once"
    attach = Row(f"{count} {each} of {size}: attach", Figure.of([one["seconds"] for one in opened]),
                 {"copying a native file": beside.pop("copying, seconds")} if beside else {})  # fmt: skip
    memory = Row(f"{count} {each} of {size}: memory beyond their contexts and the manager's copy",
                 Figure.single(shared, "B"), beside)  # fmt: skip
    return [attach, memory]


def _all(told: list[Client], do: str, **fields: Any) -> list[dict[str, Any]]:
    for client in told:
        client.tell(do, **fields)
    return [client.hear() for client in told]


ITEMS = {"clients": clients}
SECONDS = {"clients": 90.0}
