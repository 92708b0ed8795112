"""One process of a measured group: gets its framework ready, waits, loads a model, runs it once, says what that took.

Talks in JSON lines on stdout; waits for a line on stdin before each of its steps (go, weigh, end), so that a group
loads at the same moment and is weighed while all of it is alive. Its argument is a Spec of bench.group as JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from typing import Any


def memory() -> dict[str, int]:
    """Bytes of this process: proportional and resident set, private dirty pages."""
    found = {}
    with open("/proc/self/smaps_rollup") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("Pss", "Rss", "Private_Dirty"):
                found[name.lower()] = int(value.split()[0]) * 1024
    return found


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


def heard() -> bool:
    return bool(sys.stdin.readline())


def feeds(session: Any, shapes: dict[str, list[int]], values: dict[str, float]) -> dict[str, Any]:
    """The same random inputs in every process, from the shapes that the graph names; unnamed dimensions are 1."""
    import numpy as np

    rng = np.random.default_rng(0)
    made = {}
    for arg in session.get_inputs():
        shape = shapes.get(arg.name) or [n if isinstance(n, int) else 1 for n in arg.shape]
        dtype = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(int64)": np.int64}[arg.type]
        if arg.name in values:
            made[arg.name] = np.full(arg.shape, values[arg.name], dtype)
        elif np.issubdtype(dtype, np.integer):
            made[arg.name] = rng.integers(0, 256, shape).astype(dtype)
        else:
            made[arg.name] = rng.standard_normal(shape).astype(np.float32)
    return made


def options(threads: int) -> Any:
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = threads
    made.log_severity_level = 3
    return made


def load(spec: dict[str, Any]) -> tuple[Any, Any]:
    """(what must stay alive, the session) for the Spec's mode."""
    if spec["mode"] == "native":
        import onnxruntime

        return None, onnxruntime.InferenceSession(spec["model"], options(spec["threads"]))
    import trims  # counted: a native program does not need it

    model = trims.open(spec["model"], place="host", timeout=120)
    return model, model.onnxruntime(share=spec["share"], sess_options=options(spec["threads"]))


def main() -> None:
    spec = json.loads(sys.argv[1])
    import numpy  # noqa: F401 - part of getting ready
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    say(ready=time.monotonic() - spec["spawned"])
    if not heard():
        return
    begun = time.monotonic()
    digest = ""
    if spec["mode"] != "floor":
        _model, session = load(spec)
        loaded = time.monotonic()
        outputs = session.run(None, feeds(session, spec["shapes"], spec["values"]))
        first = time.monotonic()
        digest = hashlib.sha256(b"".join(output.tobytes() for output in outputs)).hexdigest()
        say(load=loaded - begun, first=first - begun, digest=digest)
    else:
        say(load=0.0, first=0.0, digest="")
    if heard():
        say(**memory())
    heard()


if __name__ == "__main__":
    main()
