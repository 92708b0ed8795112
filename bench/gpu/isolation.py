"""Through trims, with real processes: one that writes, or is killed, costs nobody else anything.

What does not hold raises, which makes the item a failed one. Times are rows of bench.harness.
"""

from __future__ import annotations

from typing import Any

from bench.gpu.peers import until
from bench.gpu.place import MIB, Place
from bench.gpu.serving import Client, GpuWorld, ended, kill, serving
from bench.harness import Figure, Row, as_json
from trims.errors import TrimsError

KILLS = 20
SLACK = 4 * MIB
"""Bytes that the GPU's memory may differ by when nothing of ours does."""


def opened(world: GpuWorld, ref: str = "m") -> Client:
    client = Client(world.env)
    client.ask("open", ref=ref, place=world.gpu)
    return client


def write_fault(place: Place) -> dict[str, Any]:
    """A client writes to the weights: its own end, and nobody else's."""
    with serving(place, place.small) as world, opened(world) as one, opened(world) as writer, opened(world) as other:
        before = one.ask("digest")
        wrote = writer.ask("write")
        assert wrote["error"], f"the write went through: {wrote}"
        assert one.ask("digest") == other.ask("digest") == before, "the weights have changed"
        with opened(world) as new:
            assert new.ask("digest") == before, "a new client sees other weights"
        world.trims("verify", "--resident")
        said = f"by {wrote['by']}: {wrote['error']}; its context afterwards: {wrote['context_afterwards']}"
        return {"writer": wrote, "notes": [said, "two others, a new client and verify --resident: the same bytes"]}


def killed_client(place: Place) -> dict[str, Any]:
    with serving(place, place.small) as world, opened(world) as stays:
        before = stays.ask("digest")
        gone, back = [], []
        for _ in range(3 if place.simulated else KILLS):
            level = world.used()
            with opened(world) as client:
                assert world.leases() == 2, world.leases()
                kill(client.pid)
                seconds = until(lambda: world.leases() == 1)
                freed = until(lambda level=level: world.used() <= level + SLACK)  # type: ignore[misc]
            assert seconds is not None and freed is not None, "the lease, or its memory, did not come back"
            gone.append(seconds)
            back.append(seconds + freed)
        assert stays.ask("digest") == before, "the other client's weights have changed"
        worst = max(gone)
        rows = [
            Row("SIGKILL of a client to its lease gone", Figure.of(gone), {"at worst": Figure.single(worst)},
                "100 ms, also at worst", worst <= 0.1, comparable=False),
            Row("SIGKILL of a client to its memory back in NVML", Figure.of(back),
                {"at worst": Figure.single(max(back))}, comparable=False),
        ]  # fmt: skip
        return {"rows": [as_json(row) for row in rows]}


def killed_worker(place: Place) -> dict[str, Any]:
    """The worker of the GPU is killed while it loads: that load fails, the next one does not."""
    with serving(place, place.small, 2 * place.middle + 64 * MIB) as world, opened(world) as stays:
        world.put("n", place.middle, 1)
        before, manager = stays.ask("digest"), world.manager_pid()
        killed: list[int] = []

        def progress(*_: int) -> None:
            if not killed:
                killed.append(int(world.about()["worker"]))
                kill(killed[0])

        from trims.client.control import Control

        said = ""
        with Control([str(world.socket)]) as control:
            try:
                control.request("warm", progress, ref="n", place=world.gpu)
            except TrimsError as error:
                said = str(error)
        during = bool(said)
        if not killed:
            progress()
            world.evict("n")
        assert during or not said
        seconds = world.warm("n") or 0.0
        assert world.manager_pid() == manager and stays.ask("digest") == before
        assert int(world.about()["worker"]) != killed[0]
        rows = [Row("the next load, with a new worker", Figure.single(seconds))]
        notes = [f"while it loaded: {said}" if during else "the load was too short: it was killed afterwards"]
        return {"during_a_load": during, "rows": [as_json(row) for row in rows], "notes": notes}


def killed_manager(place: Place) -> dict[str, Any]:
    """Its clients go on; its worker ends; another manager serves the same store at once; then all memory comes back."""
    with serving(place, place.small) as world:
        with opened(world) as one, opened(world) as two:
            before, worker = one.ask("digest"), int(world.about()["worker"])
            kill(world.manager_pid())
            worker_end = until(lambda: ended(worker))
            assert worker_end is not None, "its worker lives on"
            assert one.ask("digest") == two.ask("digest") == before, "the weights have changed"
            world.start()
            with Client(world.env) as three:
                came = three.ask("open", ref="m", place=world.gpu)
                assert three.ask("digest") == before, "the next manager gives other weights"
                assert one.ask("digest") == before, "the weights have changed"
        world.trims("stop", "--now")
        with_nobody = until(lambda: world.used() <= int(place.device["used"]) + SLACK)
        assert with_nobody is not None, f"{world.used()} bytes are still used"
        rows = [
            Row("SIGKILL of the manager to its worker's end", Figure.single(worker_end)),
            Row("first attach with the next manager, load included", Figure.single(came["seconds"])),
            Row("the end of everybody to all memory back in NVML", Figure.single(with_nobody)),
        ]
        return {"rows": [as_json(row) for row in rows]}


ITEMS = {f.__name__: f for f in (write_fault, killed_client, killed_worker, killed_manager)}
SECONDS = {"killed_client": 75.0}
