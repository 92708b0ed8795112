"""Whatever clients send, in whatever order, and however they leave: the manager serves the next one as before."""

from __future__ import annotations

import os
import random

import pytest
from helpers.raw import Raw, descriptors, shared_bytes, until

from trims.shmindex.reader import read
from trims.wire.framing import encode
from trims.wire.messages import (
    Attach,
    Evict,
    Forget,
    Pin,
    Release,
    Status,
    Trace,
    Unpin,
    WaitFor,
    Warm,
)

NUMBERS = (0, 1, -1, 3, 1 << 20, 8 << 20, 1 << 63, 10**40)
TIMES = (0.0, 0.01, 0.05, -1.0, 1e-300, 1e308, float("inf"))
NAMES = (
    "a",
    "b",
    "c",
    "a:latest",
    "",
    "x",
    "../a",
    "id:",
    "id:000000",
    "id:" + "f" * 64,
    "\0",
    "\u20ac" * 500,
    "a" * 9000,
)
PLACES = ("host", "host", "host", "", "disk", "gpu:GPU-1", "\n")


def message(rng: random.Random, digests: list[str]):
    """Some request with some values, most of them wrong in some way."""
    id = rng.choice((1, 2, 3, 4, 5, 10**30))
    ref, place, time = rng.choice(NAMES), rng.choice(PLACES), rng.choice(TIMES[:5])
    flags = {name: rng.random() < 0.5 for name in ("wait", "evict", "dry_run", "force")}
    kind = rng.randrange(10)
    if kind <= 1:
        variant = rng.choice(("raw", "auto", "", "../x", "ort-1"))
        return Attach(id, ref, place, variant, rng.choice(("", "../y", "ort-2")), time)
    if kind == 2:
        return Release(rng.choice((*range(1, 30), *NUMBERS)))
    if kind == 3:
        flavour = rng.choice(("raw", "auto", "torch", "tea"))
        return Warm(
            id,
            ref,
            place,
            flavour,
            rng.choice((None, *TIMES)),
            timeout=time,
            **{k: flags[k] for k in ("wait", "evict", "dry_run")},
        )
    if kind == 4:
        expires = rng.choice((None, *TIMES))
        return Pin(id, ref, place, "raw", rng.choice(("", "me", "\u20ac")), "why\n", expires, time)
    if kind == 5:
        return Unpin(id, rng.choice(("", ref)), rng.choice(("", "me")))
    if kind == 6:
        idle, free = rng.choice((None, *TIMES)), rng.choice((None, *NUMBERS))
        return Evict(
            id,
            rng.choice(("", ref)),
            place,
            idle,
            free,
            timeout=time,
            **{k: flags[k] for k in ("force", "wait", "dry_run")},
        )
    if kind == 7:
        condition = rng.choice(("ready", "warm", "gone", "idle", "attached", "free"))
        return WaitFor(id, condition, ref, place, rng.choice(NUMBERS), time)
    if kind == 8:
        return Trace(id, rng.choice(NUMBERS), rng.choice(NUMBERS))
    return Forget(id, rng.choice((*digests, "x", "")), flags["force"])


@pytest.mark.parametrize("seed", range(6))
def test_random_clients(put, managers, seed):
    rng = random.Random(seed)
    manager = managers(budget_host="4MiB", residency_ttl="50ms" if seed % 2 else "forever")
    digests = [put(name, (n + 1) << 20) for n, name in enumerate("abc")]
    clients: list[Raw] = []
    with Raw(manager.runtime.socket) as watcher:
        before = descriptors(manager.pid)
        for _ in range(250):
            if len(clients) < 6:
                clients.append(Raw(manager.runtime.socket))
            client = rng.choice(clients)
            try:
                data = b"".join(encode(message(rng, digests)) for _ in range(rng.randint(1, 8)))
                if rng.random() < 0.05:
                    data = data[: rng.randrange(len(data))] + os.urandom(rng.randint(0, 20))
                client.sock.sendall(data)
                if rng.random() < 0.3:
                    client.sock.setblocking(False)
                    client.receive()
            except OSError:
                pass
            client.sock.settimeout(20)
            if rng.random() < 0.1:
                clients.remove(client)
                client.close()
            if rng.random() < 0.2:
                assert watcher.ask(Status).items[0]["budgets"]["host"]["used"] <= 4 << 20
        for client in clients:
            client.close()
        watcher.ask(Unpin)
        until(lambda: watcher.ask(Status).items[0]["connections"] == 1, watcher)

        def empty() -> bool:
            """What clients wished for before they left may still come; then it is evicted too."""
            watcher.ask(Unpin)
            watcher.ask(Evict, force=True)
            return not read(f"{manager.runtime.directory}/index").residencies and shared_bytes(manager.pid) == 0

        until(empty, watcher)
        until(lambda: descriptors(manager.pid) == before, watcher)
        assert watcher.attach("c").digest == digests[2]
    with open(f"{manager.runtime.directory}/log") as file:
        assert "Traceback" not in file.read()
