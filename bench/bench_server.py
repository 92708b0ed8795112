"""Attaches a second of one manager, beside an echo server that is nothing but a selectors loop.

Both are asked by the same bare client: a message, an answer, a descriptor with it, closed at once.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench import zoo
from bench.harness import Figure, Row, report
from bench.world import ROOT, World


def run(quick: bool) -> None:
    rows = []
    seconds = 0.5 if quick else 3.0
    with World() as world:
        world.trims("init")
        world.trims("import", str(zoo.synthetic(8 << 20)), "--name", "m")
        world.start()
        world.trims("warm", "m")
        echo_path = str(world.runtime / "echo.sock")
        echo = subprocess.Popen([sys.executable, "-m", "bench.echo", echo_path], cwd=ROOT, stdout=subprocess.PIPE)
        assert echo.stdout is not None
        echo.stdout.readline()
        try:
            for clients in (1, 8):
                turns = [rate(world, clients, seconds, echo_path) for _ in range(2 if quick else 5)]
                ours, theirs = (Figure.of([turn[side] for turn in turns], "1/s") for side in (0, 1))
                met = ours.p50 >= 10_000 and ours.p50 >= theirs.p50 / 2
                label = f"{clients} client{'s' if clients > 1 else ''}"
                rows.append(Row(label, ours, {"echo server": theirs}, "10,000/s; half of the echo", met))
        finally:
            echo.kill()
            echo.communicate()
    report("server", "Attaches a second", rows, [], quick)


def rate(world: World, clients: int, seconds: float, echo_path: str) -> tuple[float, float]:
    """(attaches, echoes) a second, all clients together; one after the other within a turn."""
    attaches = group(world, clients, seconds, "attach", str(world.socket))
    return attaches, group(world, clients, seconds, "echo", echo_path)


def group(world: World, clients: int, seconds: float, way: str, path: str) -> float:
    command = [sys.executable, "-m", "bench.asker", json.dumps({"way": way, "path": path, "seconds": seconds})]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    asking = [subprocess.Popen(command, env=world.env, cwd=ROOT, text=True, **pipes) for _ in range(clients)]
    try:
        for process in asking:
            process.stdout.readline()  # connected
        for process in asking:
            process.stdin.write("\n")
            process.stdin.flush()
        return sum(float(process.stdout.readline()) for process in asking)
    finally:
        for process in asking:
            process.kill()
            process.communicate()
