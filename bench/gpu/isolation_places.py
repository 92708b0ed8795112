"""Through trims: what gives way on a GPU is kept on the host, memory that went is free, damage in memory is found."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from bench.gpu.isolation import SLACK, opened
from bench.gpu.peers import until
from bench.gpu.place import MIB, Place
from bench.gpu.running import ROOT
from bench.gpu.serving import Client, GpuWorld, serving
from bench.harness import Figure, Row, as_json, show
from bench.world import TRIMS


def demotion(place: Place) -> dict[str, Any]:
    """Room for two models on the GPU, and three that are wanted there: the one that gives way is on the host then."""
    room = 2 * place.small + place.small // 2
    with GpuWorld(place, 4 * place.small + 256 * MIB, room, "--demote-to", "host") as world:
        for seed, name in enumerate("abc"):
            world.put(name, place.small, seed)
        world.start()
        seconds = [world.warm(name) for name in "abc"]
        where = {name: [row["place"] for row in world.json("ps")["items"] if row["model"] == f"{name}:latest"]
                 for name in "abc"}  # fmt: skip
        demoted = [name for name in "ab" if world.gpu not in where[name]]
        assert len(demoted) == 1 and where["c"] == [world.gpu], f"no one model gave way: {where}"
        world.request("wait", ref=demoted[0], place="host", condition="warm", timeout=60.0)
        with opened(world, "c") as client:
            expected = client.ask("digest")
        item = world.evict("c", to="host")
        with Client(world.env) as back:
            back.ask("open", ref="c", place=world.gpu)
            assert back.ask("digest") == expected, "it came back other than it went"
        rows = [Row("a load for which a model moved to the host", Figure.single(seconds[2]),
                    {"one for which none had to": Figure.of(seconds[:2])})]  # fmt: skip
        return {"rows": [as_json(row) for row in rows], "notes": [f"{demoted[0]} moved; by hand: {item['outcome']}"]}


def eviction(place: Place) -> dict[str, Any]:
    """Memory of an evicted model is free at once, and that of a doomed one with its last client."""
    with serving(place, place.small) as world:
        level = world.used()
        world.evict("m")
        freed = until(lambda: world.used() <= level - place.small + SLACK)
        assert freed is not None, "nothing came back"
        world.warm("m")
        with opened(world):
            item = world.evict("m", force=True)
            assert item["outcome"] == "doomed", item
            kept = world.used()
        gone = until(lambda: world.used() <= level - place.small + SLACK)
        assert gone is not None and kept >= level, "a client's memory went under it, or stayed after its end"
        rows = [Row("evicted to its memory back in NVML", Figure.single(freed)),
                Row("the end of a doomed model's last client to its memory back in NVML",
                    Figure.single(gone))]  # fmt: skip
        return {"rows": [as_json(row) for row in rows]}


def verify(place: Place) -> dict[str, Any]:
    """What is on the GPU is read back and held to its digests; a byte that somebody changed on purpose is found."""
    with serving(place, place.middle) as world:
        found = _verify(world)
        assert found["code"] == 0 and found["items"], found
        tamper = [sys.executable, "-m", "bench.gpu.tamper", str(world.socket), "m", world.gpu]
        name = subprocess.run(tamper, cwd=ROOT, env=world.env, check=True, capture_output=True, text=True).stdout
        damaged = _verify(world)
        assert damaged["code"] == 14 and damaged["items"][0]["damaged"] == [name.strip()], damaged
        world.evict("m", force=True)
        world.warm("m")
        assert _verify(world)["code"] == 0
        seconds = found["seconds"]
        rows = [Row(f"verify --resident of {show(place.middle, 'B')}", Figure.single(place.middle / seconds, "B/s"))]
        return {"rows": [as_json(row) for row in rows], "notes": [f"a changed byte was found in {name.strip()}"]}


def _verify(world: GpuWorld) -> dict[str, Any]:
    import time

    begun = time.perf_counter()
    done = subprocess.run(
        [TRIMS, "verify", "--resident", "--json"], env=world.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    items = json.loads(done.stdout)["items"] if done.stdout else []
    return {"code": done.returncode, "items": items, "seconds": time.perf_counter() - begun}


ITEMS = {f.__name__: f for f in (demotion, eviction, verify)}
