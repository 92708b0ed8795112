"""What docs/gpu.md says of kept results of GPUs, made from bench/results/gpu; with --check, only fail when it differs.

bench/results/gpu has a directory for each device, with the JSON files that `scripts/gpu-check` made there. Without any
the document says that nothing was measured.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.figures import line
from bench.gpu import kept
from bench.harness import RESULTS, ROOT, show
from bench.sections import fill

KEPT = RESULTS / "gpu"
DOCUMENT = ROOT / "docs" / "gpu.md"
STAGES = ("settle", "tests", "isolation", "figures", "paper")
NOTHING = "Not measured yet: no GPU was at hand. `scripts/gpu-check` measures; `--commit` puts its results here.\n"


def commit(directory: Path) -> int:
    """Take the results of a run over, and make the document anew. 1, and one line, when they are none."""
    paths = [path for stage in STAGES if (path := directory / f"{stage}.json").exists()]
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    why = _unfit(documents)
    if why:
        print(f"gpu-check: {directory} is not taken over: {why}", file=sys.stderr)
        return 1
    to = KEPT / _name(documents[0]["device"]["name"])
    to.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copy(path, to / path.name)
    DOCUMENT.write_text(_filled(), encoding="utf-8")
    print(f"gpu-check: {', '.join(path.name for path in paths)} are in {to}; {DOCUMENT.name} says so")
    return 0


def _unfit(documents: list[dict[str, Any]]) -> str:
    if not documents:
        return "there are no results"
    if any(document.get("schema") != kept.SCHEMA for document in documents):
        return "a file is no result of scripts/gpu-check"
    if any(document["simulated"] or document["device"]["name"] == "Stub" for document in documents):
        return "simulated GPUs have no figures"
    names = {(document["device"]["name"], document["device"].get("driver")) for document in documents}
    return "" if len(names) == 1 else "they are of several devices"


def _name(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def table() -> str:
    """The section: each device with its answers, checks and figures."""
    devices = sorted(path for path in KEPT.iterdir() if path.is_dir()) if KEPT.is_dir() else []
    parts = [text for device in devices if (text := "\n".join(_device(device)))]
    return "\n\n".join(parts) + "\n" if parts else NOTHING


def _device(directory: Path) -> Iterator[str]:
    documents = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))}
    first = next(iter(documents.values()), None)
    if first is None:
        return
    device, machine = first["device"], first["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items())
    yield f"### {device['name']}\n"
    yield (
        f"{show(device['nbytes'], 'B')}, driver {device.get('driver')}, CUDA {device.get('cuda')}; {machine['cpu']}, "
        f"{machine['cores']} cores, {show(machine['memory'], 'B')}, Linux {machine['kernel']}, Python "
        f"{machine['python']}; {libraries}. {first['made'][:10]}.\n"
    )
    yield from (f"- {note}" for note in (*device["notes"], *first["notes"]))
    for stage in STAGES:
        if stage in documents:
            yield from _stage(stage, documents[stage])


def _stage(stage: str, document: dict[str, Any]) -> Iterator[str]:
    items = document["items"]
    if stage == "settle":
        yield from ("\n| Question | Answer | as trims needs it |", "|---|---|---|")
        yield from (_answer(name, item) for name, item in items.items())
    else:
        yield from (f"\n| {stage.capitalize()} | trims | Beside it | Target |", "|---|---|---|---|")
        for name, item in items.items():
            yield from _lines(name, item)


def _answer(name: str, item: dict[str, Any]) -> str:
    if item["outcome"] != "done":
        return f"| {name} | {item['outcome']}: {item['why']} | |"
    result = item["result"]
    needed = {"": "either", result["answer"]: "yes"}.get(result["wanted"], "**no**")
    return f"| {result['question']} | {result['answer']} | {needed} |"


def _lines(name: str, item: dict[str, Any]) -> Iterator[str]:
    if item["outcome"] != "done":
        yield f"| **{name}** | {item['outcome']}: {item['why']} | | |"
        return
    result = item["result"]
    counts = ", ".join(f"{number} {kind}" for kind, number in result.get("counts", {}).items())
    notes = "; ".join((*([counts] if counts else []), *result.get("notes", ())))
    yield f"| **{name.replace('_', ' ')}**{': ' + notes if notes else ''} | | | |"
    yield from (line(row) for row in result.get("rows", ()))


def _filled() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return fill(text, "bench.gpu_doc", {"figures": table}, DOCUMENT.name)


def main() -> int:
    text, wanted = DOCUMENT.read_text(encoding="utf-8"), _filled()
    if sys.argv[1:] != ["--check"]:
        DOCUMENT.write_text(wanted, encoding="utf-8")
        return 0
    if text != wanted:
        print(f"{DOCUMENT.name} and bench/results/gpu differ: run python -m bench.gpu_doc", file=sys.stderr)
    return int(text != wanted)


if __name__ == "__main__":
    sys.exit(main())
