"""python -m bench NAME...: run benchmarks by name; `all` is every one, `--quick` a short look that keeps nothing."""

from __future__ import annotations

import argparse
import importlib
import sys
import time

from bench import machine
from bench.harness import show

BENCHMARKS = {
    "attach": "open a resident model, beside loading the same bytes",
    "server": "attaches a second, beside an echo server",
    "ort": "ONNX Runtime sessions, beside native ones",
    "start": "from opening a model to its first result, and the parts of that",
    "torch": "PyTorch modules, beside torch.load and safetensors",
    "exec": "unmodified programs under trims exec, beside bare ones",
    "memory": "memory of 8 processes with one model",
    "pipeline": "pipelines of three processes, native and under trims exec",
    "warm": "disk to host, beside raw reads",
    "import": "import, beside cp and fsync",
    "cli": "commands, beside python -c pass",
    "catalog": "100,000 refs, beside SQLite",
    "index": "reading the index, beside memcpy; what top costs",
    "policies": "a hit and a decision of every eviction policy, with 10,000 residents",
    "killed": "how long a killed client's lease lives",
}


def main() -> int:
    listing = "\n".join(f"  {name:<9} {text}" for name, text in BENCHMARKS.items())
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/bench", description=f"{__doc__}\n\n{listing}", formatter_class=raw)
    parser.add_argument("names", nargs="+", choices=[*BENCHMARKS, "all"], metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds, no results kept")
    args = parser.parse_args()
    names = list(BENCHMARKS) if "all" in args.names else args.names
    limits = machine.limits()
    known = machine.describe()
    print(f"{known['cpu']}, {known['cores']} cores, {show(known['memory'], 'B')}, Linux {known['kernel']}")
    print(
        f"memcpy {show(limits['memcpy'], 'B/s')}, fresh memory {show(limits['fresh_memory'], 'B/s')}, "
        f"disk {show(limits['disk_read'], 'B/s')}, bare Python {show(limits['python_start'], 's')}"
    )
    failed = []
    for name in names:
        begun = time.monotonic()
        try:
            importlib.import_module(f"bench.bench_{name}").run(args.quick)
        except Exception as error:  # one benchmark that fails must not lose the others' results
            failed.append(name)
            print(f"bench {name} failed: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"  ({name}: {time.monotonic() - begun:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
