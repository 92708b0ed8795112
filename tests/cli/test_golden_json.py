"""Every command's JSON, whole, against documents that are kept: fields may be added to these, never renamed or retyped.

What differs from run to run is replaced by the name of its type, so that a field that changes its type is seen, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import cli

from trims.devices import simulated

GOLDEN = Path(__file__).parent.parent / "golden" / "cli.json"
GOLDEN_GPU = GOLDEN.with_name("cli_gpu.json")
RECORDED = """{"format":"trims.trace/1","kind":"requests","started":"2026-01-01T00:00:00Z","policy":"lru"}
{"model":{"name":"m:latest","digest":"ab","nbytes":64,"tensors":2}}
{"model":{"name":"gone"}}
{"client":{"pid":7,"job":"1_2"}}
[0.5,0,0,2,0.25,1.5]
[1.5,0,0,0,0.001,null]
[2.5,0,1,4,0.001,null]
{"lost":3}
{"ended":10.0}
"""
VOLATILE = {
    "age", "created", "digest", "files", "filesystem", "free", "hits", "id", "identity", "load_seconds", "nbytes_in",
    "origin", "others", "path", "pid", "reclaimable", "reserved", "seconds", "since", "socket", "started", "store",
    "stored", "time", "used", "verified", "version", "worker", "written", "reason", "by",
    "batch_ratio", "max", "mean", "p50", "p90", "p95", "p99", "penalty", "ready_mean", "ready_p50", "ready_speedup",
    "speedup", "speedup_interval", "throughput",
}  # fmt: skip


def normal(value: Any, home: str, key: str = "") -> Any:
    """`value` with what varies as `<type>`, and paths of this run as `<path>`; a null stays a null."""
    if isinstance(value, dict):
        return {k: normal(v, home, k) for k, v in value.items()}
    if isinstance(value, str) and value.startswith(home):
        return "<path>"
    if key in VOLATILE and value is not None:
        return f"<{type(value).__name__}>"
    if isinstance(value, list):
        return [normal(v, home) for v in value]
    return value


def test_json_of_every_command(manager: Any, home: Path) -> None:
    store = manager.runtime.store
    out, source = home / "out.npz", home / "new.npy"
    cli.fill(store, m=cli.small(1), n=cli.small(5))
    np.save(source, np.arange(6, dtype=np.float32))
    recorded = home / "recorded.jsonl"
    recorded.write_text(RECORDED)
    commands: list[tuple[str, ...]] = [
        ("init", str(home / "other")),
        ("import", str(source), "--name", "p:v1"),
        ("warm", "m"),
        ("warm", "m"),
        ("warm", "-n", "n"),
        ("pin", "n", "--for", "1h", "--reason", "why"),
        ("wait", "--for", "warm", "m"),
        ("ls",),
        ("show", "m"),
        ("show", "m", "--tensors"),
        ("ps",),
        ("status",),
        ("config",),
        ("verify", "m"),
        ("export", "m", "-o", str(out), "--format", "npz"),
        ("unpin", "n"),
        ("evict", "m"),
        ("evict", "m"),
        ("rm", "p:v1"),
        ("gc", "-n"),
        ("top", "--once"),
        ("show", "m", "--history"),
        ("policy",),
        ("policy", "lru"),
        ("trace", "record", str(home / "new.jsonl"), "--for", "1ms"),
        ("trace", "show", str(recorded)),
        ("bench", "workload", "--model", str(out), "--requests", "2", "--budget", "8MiB", "-q"),
        ("simulate", "--models", "4", "--sigma", "0", "--median", "1MiB", "-d", "uniform", "--requests", "40"),
    ]
    assert documents(commands, home) == json.loads(GOLDEN.read_text())


def test_json_about_gpus(
    managers: Callable[..., Any], runtime: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated.make(str(home / "gpus"), gpus=1, nbytes=64 << 20)
    monkeypatch.setenv("TRIMS_SIMULATED_GPUS", str(home / "gpus"))
    managers(budget_gpu="16MiB")
    cli.fill(runtime.store, m=cli.small(1))
    commands: list[tuple[str, ...]] = [
        ("start",),
        ("status", "-v"),
        ("warm", "m", "--to", "gpu:0"),
        ("pin", "m", "--on", "gpu"),
        ("wait", "--for", "warm", "m", "--on", "gpu"),
        ("ls",),
        ("ps",),
        ("top", "--once"),
        ("unpin", "m"),
        ("evict", "--all", "--on", "gpu", "--to", "host"),
        ("evict", "m", "--to", "host"),
    ]
    assert documents(commands, home) == json.loads(GOLDEN_GPU.read_text())


def documents(commands: list[tuple[str, ...]], home: Path) -> dict[str, Any]:
    """What each command prints as JSON, made the same for every run."""
    found = {}
    for number, words in enumerate(commands):
        said = " ".join("PATH" if word.startswith("/") else word for word in words)
        found[f"{number} {said}"] = normal(json.loads(cli.ok(*words, "--json")), str(home))
    return found
