"""What trims replaces, in the same processes: other loaders of the same weights, and legacy CUDA IPC."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bench import zoo
from bench.gpu import programs
from bench.gpu.peers import ask, peers
from bench.gpu.place import MIB, Place
from bench.gpu.serving import Client, GpuWorld, serving
from bench.gpu.settle_sharing import exported
from bench.harness import Figure, Row, as_json, interleave, show

LABELS = {
    "safetensors": "safetensors.torch.load_file(device=cuda)", "torch": "torch.load(map_location=cuda)",
    "copy": "safetensors file, plain copies",
}  # fmt: skip


def _ways(world: GpuWorld, place: Place) -> dict[str, str]:
    """Way -> the file that it loads. Asked in a process of its own: looking for PyTorch loads it."""
    file = str(zoo.synthetic(place.middle))
    found = {"copy": file}
    with Client(world.env) as client:
        if client.ask("prepare")["engine"] == "torch":
            found |= {"safetensors": file, "torch": _saved(place, file)}
    return found


def _saved(place: Place, file: str) -> str:
    """The same tensors as torch.save writes them."""
    import subprocess

    path = str(Path(place.work, "model.pt"))
    code = "import sys, torch; from safetensors.torch import load_file; torch.save(load_file(sys.argv[1]), sys.argv[2])"
    subprocess.run([sys.executable, "-c", code, file, path], check=True)
    return path


def in_one_process(place: Place) -> dict[str, Any]:
    """Loading again and again in a warm process, page cache warm, taking turns; each gives back what it had."""
    with serving(place, place.middle) as world:
        ways = _ways(world, place)
        with Client(world.env, "trims.client.handle", "bench.gpu.loaders") as client:
            client.ask("prepare")

            def native(way: str) -> float:
                seconds = float(client.ask("native", way=way, path=ways[way])["seconds"])
                client.ask("close")
                return seconds

            sides: dict[str, Any] = {LABELS[way]: lambda way=way: native(way) for way in ways}
            sides["trims"] = lambda: client.ask("again", ref="m", place=world.gpu, times=1)["seconds"][0]
            figures = interleave(sides, 2 if place.simulated else 5)
        ours = figures.pop("trims")
        row = Row(f"{show(place.middle, 'B')} on the GPU, again in a process, page cache warm", ours, figures)
        return {"rows": [as_json(row)]}


def from_their_start(place: Place) -> dict[str, Any]:
    """One process a model: from where its code begins until the weights can be used, imports and context included."""
    with serving(place, place.middle) as world:
        ways = _ways(world, place)
        rows = []
        for imports, way in ((("torch",), "safetensors"), ((), "copy")):
            if way not in ways:
                continue

            def ours(imports: tuple[str, ...] = imports) -> float:
                with Client(world.env, *imports) as client:
                    return float(client.ask("open", ref="m", place=world.gpu)["since_start"])

            def theirs(imports: tuple[str, ...] = imports, way: str = way) -> float:
                with Client(world.env, *imports) as client:
                    return float(client.ask("native", way=way, path=ways[way])["since_start"])

            figures = interleave({"trims": ours, LABELS[way]: theirs}, 1 if place.simulated else 3, warm=0)
            what = "with PyTorch" if imports else "without a framework"
            title = f"{show(place.middle, 'B')} from a process's start, {what}, page cache warm"
            rows.append(Row(title, figures.pop("trims"), figures))
        return {"rows": [as_json(row) for row in rows]}


def legacy_ipc(place: Place) -> dict[str, Any]:
    """Opening a handle of legacy IPC of as many bytes, each in a fresh process with a context."""
    with peers(place) as start:
        _, handle, _ = exported(start(), place.middle // (2 * MIB) * 2 * MIB)
        seconds = [ask(start(), programs.open_ipc, handle) for _ in range(5)]
    return {"rows": [as_json(Row(f"legacy IPC: opening {show(place.middle, 'B')}", Figure.of(seconds)))]}


ITEMS = {f.__name__: f for f in (in_one_process, from_their_start, legacy_ipc)}
SECONDS = {"in_one_process": 75.0, "from_their_start": 75.0}
