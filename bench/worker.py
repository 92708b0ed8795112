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

from bench import loaders


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


def main() -> None:
    spec = json.loads(sys.argv[1])
    begun = time.monotonic()
    loaders.prepare(spec)
    imported = time.monotonic() - begun
    say(ready=time.monotonic() - spec["spawned"])
    if not heard():
        return
    begun = time.monotonic()
    run = loaders.load(spec)
    loaded = time.monotonic()
    output = run()
    first = time.monotonic()
    steady = []
    for _ in range(spec["repeat"]):
        again = time.monotonic()
        run()
        steady.append(time.monotonic() - again)
    parts = {"attach": 0.0, "imported": imported, **loaders.PARTS}
    digest = hashlib.sha256(output).hexdigest()
    say(load=loaded - begun, first=first - begun, steady=steady, digest=digest, **parts)
    if heard():
        say(**memory())
    heard()


if __name__ == "__main__":
    main()
