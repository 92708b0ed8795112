"""Run one model in several processes at once and weigh them together."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Spec:
    """What a worker does.

    mode: one of bench.loaders.WAYS. model: a path, or a ref for the ways through trims.
    share: how a trims session shares ("exact" keeps native bits, "max" turns prepacking off).
    imported: whether trims is imported before the clock starts, as the framework is.
    repeat: how many more runs after the first are timed.
    shapes, values: of the inputs whose shape the graph leaves open, or that must hold one value.
    """

    mode: str
    model: str = ""
    share: str = "exact"
    threads: int = 1
    imported: bool = False
    repeat: int = 0
    shapes: dict[str, list[int]] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """Medians over the group, in seconds and bytes; `pss_total` is the sum. One digest for equal outputs, else several.

    load: until the session is there. first: until the first result. spawn: the same, counted from the start of the
    process, without the wait for the others. steady: a later run, 0 when none was asked for. attach: the part of `load`
    that is trims.open. imported: importing the framework, before all that.
    """

    load: float
    first: float
    spawn: float
    pss: float
    pss_total: int
    private_dirty: float
    steady: float
    digests: frozenset[str]
    attach: float = 0.0
    imported: float = 0.0


class Group:
    """Processes that take their steps together. A context manager; what is left of it at the end is killed."""

    def __init__(self, spec: Spec, count: int, env: dict[str, str]) -> None:
        self.spec, self.count, self.env = spec, count, env
        self.processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Group:
        for _ in range(self.count):
            argument = json.dumps(asdict(self.spec) | {"spawned": time.monotonic()})
            command = [sys.executable, "-m", "bench.worker", argument]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            self.processes.append(subprocess.Popen(command, env=self.env, cwd=ROOT, text=True, **pipes))
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def hear(self) -> list[dict[str, Any]]:
        """The next line of every process. Raises RuntimeError with the last words of one that died."""
        answers = []
        for process in self.processes:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                words = process.communicate()[1].strip().splitlines()
                raise RuntimeError(f"{self.spec.mode} {self.spec.model}: {words[-1] if words else 'a worker died'}")
            answers.append(json.loads(line))
        return answers

    def tell(self) -> None:
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()


def run(spec: Spec, count: int, env: dict[str, str] | None = None) -> Outcome:
    """Start `count` processes, let them load at one moment, weigh them while all live, end them."""
    with Group(spec, count, dict(os.environ) if env is None else env) as group:
        ready = group.hear()
        group.tell()
        loaded = group.hear()
        group.tell()
        weighed = group.hear()
        group.tell()
        for process in group.processes:
            process.wait()
    median = statistics.median
    return Outcome(
        load=median(a["load"] for a in loaded),
        first=median(a["first"] for a in loaded),
        spawn=median(r["ready"] + a["first"] for r, a in zip(ready, loaded, strict=True)),
        pss=median(w["pss"] for w in weighed),
        pss_total=sum(w["pss"] for w in weighed),
        private_dirty=median(w["private_dirty"] for w in weighed),
        steady=median([second for a in loaded for second in a["steady"]] or [0.0]),
        digests=frozenset(a["digest"] for a in loaded),
        attach=median(a["attach"] for a in loaded),
        imported=median(a["imported"] for a in loaded),
    )
