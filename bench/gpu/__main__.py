"""`scripts/gpu-check`, once its environment is there: runs what is asked for, or lacking, and says what was found.

DIR then has a JSON file for each stage, summary.txt, pictures.svg (with Matplotlib) and tests.xml. What is in DIR
already, of this device and driver, is not done again unless it is named: STAGE, or STAGE:ITEM.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.gpu import kept, running, stages, words
from bench.gpu.place import Place, choose

WITHIN = 540.0
"""Seconds of one run, however many stages it has."""
LEAST = 5.0  # seconds: what is begun with less left is not worth it
TESTS = "GPU_CHECK_OUT"
"""The environment variable with DIR, for the items that write files there."""


def main() -> int:
    args = _parse()
    if args.commit:
        from bench import gpu_doc

        return gpu_doc.commit(args.commit)
    wanted = _wanted(args.stages)
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    running.adopt()
    with tempfile.TemporaryDirectory(prefix="gpu-check-", dir=_below()) as work:
        with tempfile.TemporaryDirectory(prefix="gc-", dir="/tmp") as sockets:
            directory = _simulated(work) if args.simulated else ""
            facts = _facts(directory)
            if facts is None:
                return 23
            place = choose(facts["device"], directory, work, sockets)
            os.environ[TESTS] = str(out)
            run = Run(place, facts, out, time.monotonic() + args.within)
            for stage in stages.STAGES:
                if not args.stages or stage in wanted:
                    run.stage(stage, wanted.get(stage))
    return _tell(out)


class Run:
    """One run: where, until when, and what is kept of it."""

    def __init__(self, place: Place, facts: dict[str, Any], out: Path, end: float) -> None:
        self.place, self.facts, self.out, self.end = place, facts, out, end

    def stage(self, name: str, chosen: set[str] | None) -> None:
        """Do what is chosen of a stage, all of it if that is empty, or else what is lacking."""
        path = self.out / f"{name}.json"
        document = kept.read(path, self.facts)
        if document is None or chosen == set():
            document = kept.begin(name, self.facts, self.place.notes)
        known = stages.items(name)
        todo = [i for i in known if i in chosen] if chosen else [i for i in known if _lacks(document, i)]
        if not todo:
            print(f"{name}: nothing is lacking in {path}")
        end = min(self.end, time.monotonic() + stages.STAGE_SECONDS)
        for item in todo:
            left = end - time.monotonic()
            if left < LEAST:
                break
            found = running.run(name, item, self.place, min(left, known[item][1]))
            found["cut"] = found["outcome"] == "late" and left < known[item][1]
            document["items"][item] = found
            document["complete"] = not any(_lacks(document, i) for i in known)
            kept.write(path, document)
            print("\n".join(words.item(name, item, found)), flush=True)
        left_out = [item for item in known if _lacks(document, item)]
        if left_out and not chosen:
            print(f"{name}: no time was left for {', '.join(left_out)}; the next run goes on there")


def _lacks(document: kept.Document, item: str) -> bool:
    """Whether an item was not begun, or had less than its own time."""
    return bool(document["items"].get(item, {"cut": True})["cut"])


def _parse() -> argparse.Namespace:
    listing = "\n".join(f"  {name:<10} {text}" for name, text in stages.STAGES.items())
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="scripts/gpu-check", description=f"{__doc__}\n{listing}\n  wheels     see the script", formatter_class=raw
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="or STAGE:ITEM; by default what DIR lacks")
    parser.add_argument("--out", type=Path, default=None, metavar="DIR", help="default build/gpu-check")
    parser.add_argument("--wheels", metavar="DIR", help="wheels for what this Python lacks; default build/wheels")
    parser.add_argument("--simulated", action="store_true", help="simulated GPUs: tries the script, measures nothing")
    parser.add_argument("--within", type=float, default=WITHIN, metavar="SECONDS", help="end in time; default 540")
    parser.add_argument("--commit", type=Path, metavar="DIR", help="take the results in DIR over into bench/results")
    args = parser.parse_args()
    if args.out is None:
        args.out = running.ROOT / "build" / ("gpu-check-simulated" if args.simulated else "gpu-check")
    return args


def _wanted(named: list[str]) -> dict[str, set[str]]:
    """Stage -> the items that are named of it; none of them means all."""
    wanted: dict[str, set[str]] = {}
    for text in named:
        stage, _, item = text.partition(":")
        if stage not in stages.STAGES or (item and item not in stages.items(stage)):
            known = stages.items(stage) if stage in stages.STAGES else stages.STAGES
            print(f"gpu-check: there is no {text}; known: {', '.join(known)}", file=sys.stderr)
            raise SystemExit(2)
        wanted.setdefault(stage, set()).update({item} if item else ())
    return wanted


def _below() -> Path:
    """A directory on a real disk."""
    build = running.ROOT / "build"
    build.mkdir(exist_ok=True)
    return build


def _simulated(work: str) -> str:
    from trims.devices import simulated

    return simulated.make(os.path.join(work, "gpus"), gpus=1)


def _facts(directory: str) -> dict[str, Any] | None:
    """What the device is, asked in a process of its own; None when there is none, which it has said then."""
    env = Place({"simulated": bool(directory)}, directory, "", "").environment()
    done = subprocess.run(
        [sys.executable, "-m", "bench.gpu.facts"], cwd=running.ROOT, env=env, stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        return None
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _tell(out: Path) -> int:
    """Write the summary and the pictures of all that is in DIR; 1 when something of it failed."""
    from bench.gpu import pictures

    documents = [json.loads((out / f"{s}.json").read_text()) for s in stages.STAGES if (out / f"{s}.json").exists()]
    (out / "summary.txt").write_text("\n".join(words.summary(documents)) + "\n", encoding="utf-8")
    pictures.draw(documents, out / "pictures.svg")
    bad = [
        f"{document['stage']}:{name}"
        for document in documents
        for name, found in document["items"].items()
        if found["outcome"] in ("failed", "late")
    ]
    print(f"gpu-check: see {out}/summary.txt" + (f"; failed: {', '.join(bad)}" if bad else ""))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
