"""PyTorch modules: build and load, beside what people write."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

from bench import group
from bench.harness import Row, interleave, report
from bench.world import ROOT, World

SAVE = """
import sys, torch
from safetensors.torch import save_file
from bench.loaders import network
torch.manual_seed(0)
state = {name: tensor.contiguous() for name, tensor in network().state_dict().items()}
torch.save(state, sys.argv[1] + "/net.pt")
save_file(state, sys.argv[1] + "/net.safetensors")
"""


def prepare(world: World) -> dict[str, group.Spec]:
    """Save the network in the ways people do, have it resident as `net`, and name the ways to load it."""
    subprocess.run([sys.executable, "-c", SAVE, str(world.directory)], check=True, cwd=ROOT)
    world.trims("import", str(world.directory / "net.safetensors"), "--name", "net")
    world.trims("warm", "net")
    return {
        "trims": group.Spec("torch/trims", "net", imported=True),
        "torch.load + load_state_dict": group.Spec("torch/load", str(world.directory / "net.pt")),
        "torch.load(mmap=True) + assign": group.Spec("torch/mmap", str(world.directory / "net.pt")),
        "safetensors + assign": group.Spec("torch/safetensors", str(world.directory / "net.safetensors")),
    }


def run(quick: bool) -> None:
    if importlib.util.find_spec("torch") is None:
        print("\nPyTorch is not installed (TRIMS_TEST_TORCH=1): left out")
        return
    with World() as world:
        world.trims("init")
        world.start()
        specs = prepare(world)
        digests = set()

        def side(label: str) -> float:
            outcome = group.run(specs[label], 1, world.env)
            digests.update(outcome.digests)
            return outcome.load

        figures = interleave({label: lambda label=label: side(label) for label in specs}, 2 if quick else 7)
    ours = figures.pop("trims")
    load, safe = figures["torch.load + load_state_dict"], figures["safetensors + assign"]
    met = load.p50 >= 6 * ours.p50 and ours.p50 <= 1.05 * safe.p50
    rows = [Row("6 transformer blocks, 170 MB: build and load", ours, figures, "6x torch.load; 1.0x safetensors", met)]
    notes = [f"outputs bit-identical in all ways: {'yes' if len(digests) == 1 else 'NO'}"]
    report("torch", "PyTorch: a module with its weights", rows, notes, quick)
