"""How long a lease outlives its client: from SIGKILL until the index says that nobody holds the model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from bench import zoo
from bench.harness import Figure, Row, report
from bench.world import ROOT, World

CLIENT = """
import sys, trims
model = trims.open("m", place="host")
print("attached", flush=True)
sys.stdin.read()
"""


def run(quick: bool) -> None:
    from trims.paths import RuntimePaths
    from trims.shmindex.reader import Index

    samples = []
    with World() as world, Index(RuntimePaths(str(world.socket)).index) as index:
        world.trims("init")
        world.trims("import", str(zoo.synthetic(8 << 20)), "--name", "m")
        world.start()
        world.trims("warm", "m")
        for _ in range(5 if quick else 50):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            client = subprocess.Popen([sys.executable, "-c", CLIENT], env=world.env, cwd=ROOT, **pipes)
            client.stdout.readline()
            while not held(index):
                time.sleep(0.0005)
            begun = time.perf_counter()
            client.send_signal(signal.SIGKILL)
            while held(index):
                time.sleep(0.0001)
            samples.append(time.perf_counter() - begun)
            client.communicate()
    figure = Figure.of(samples)
    rows = [Row("SIGKILL to lease gone", figure, {}, "100 ms, also at worst", max(samples) <= 0.1)]
    report("killed", "A killed client", rows, [f"worst of {len(samples)}: {max(samples) * 1e3:.2f} ms"], quick)


def held(index) -> bool:  # type: ignore[no-untyped-def]
    snapshot = index.snapshot()
    return bool(snapshot is not None and snapshot.leases)
