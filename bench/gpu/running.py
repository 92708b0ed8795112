"""One item of a stage as a process with a limit, and what becomes of it: nothing that it started outlives it.

python -m bench.gpu.running STAGE ITEM RESULT   the process: does the item, writes its result as JSON
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu.place import VARIABLE, Failed, Place, Skip

ROOT = Path(__file__).resolve().parent.parent.parent
GRACE = 8.0
"""Seconds for an item that is told to end (SIGTERM) to stop its manager and take its store away."""
_LINES = 30  # of what an item that failed said last
_PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>


def adopt() -> None:
    """Make processes whose parent ends children of this one, so that what an item leaves behind is found."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(stage: str, item: str, place: Place, seconds: float) -> dict[str, Any]:
    """{"outcome": "done", "skipped", "failed" or "late", "seconds"} and "result", or "why"."""
    with tempfile.TemporaryDirectory(dir=place.work) as work, tempfile.TemporaryDirectory(dir=place.sockets) as sockets:
        own = replace(place, work=work, sockets=sockets)
        own.write(Path(work, "place.json"))
        result, log = Path(work, "result.json"), Path(work, "log")
        env = own.environment() | {VARIABLE: str(Path(work, "place.json")), "PYTHONUNBUFFERED": "1"}
        begun = time.monotonic()
        with open(log, "wb") as said:
            command = [sys.executable, "-m", "bench.gpu.running", stage, item, str(result)]
            process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True
            )
            late = _wait(process, seconds)
            _end_orphans()
        found = {"seconds": round(time.monotonic() - begun, 2)}
        if result.exists():
            return found | json.loads(result.read_text(encoding="utf-8"))
        words = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LINES:]
        if late:
            return found | {"outcome": "late", "why": f"not done within {seconds:.0f} s", "log": words}
        return found | {"outcome": "failed", "why": f"it ended with status {process.returncode}", "log": words}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it had to be ended."""
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        process.terminate()
    except BaseException:  # whoever ends this process must not leave a GPU in use
        process.terminate()
        _kill(process)
        _end_orphans()
        raise
    _kill(process)
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_orphans() -> None:
    """Kill what an item started and left: all children of this process, which starts one item at a time."""
    for _ in range(100):  # what is killed leaves children of its own
        children = [int(pid) for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
        if not children:
            return
        for pid in children:
            try:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass


def _do(stage: str, item: str) -> dict[str, Any]:
    from bench.gpu import stages

    try:
        place = Place.read(os.environ[VARIABLE])
        result = stages.find(stage, item)(place)
        if place.simulated:
            for row in result.get("rows", ()):
                row["met"] = None  # nothing that is measured here is held to a target
        return {"outcome": "done", "result": result}
    except Skip as reason:
        return {"outcome": "skipped", "why": str(reason)}
    except Exception as error:
        words = traceback.format_exc().splitlines()[-_LINES:]
        found = {"outcome": "failed", "why": f"{type(error).__name__}: {error}".partition("\n")[0], "log": words}
        return found | ({"result": error.found} if isinstance(error, Failed) else {})


def main() -> int:
    stage, item, path = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that managers are stopped on the way out
    temporary = Path(f"{path}.part")
    temporary.write_text(json.dumps(_do(stage, item)), encoding="utf-8")
    shutil.move(temporary, path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
