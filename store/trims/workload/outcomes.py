"""What came of each request: one row a request, all times in seconds on one clock that starts with the run.

asked: the request's arrival, or when a client took it; began: its function starts; ready: its weights are usable by the
framework; done: its first result. Latency is done - asked. In a served row asked <= began <= ready <= done. A failed
row has asked <= done; began and ready are NaN where it did not get so far. Rows of failed requests enter no average.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trims.errors import BadInput

OUTCOME: Final = np.dtype(
    [
        ("request", "i4"),
        ("client", "i4"),
        ("model", "i4"),
        ("how", "u1"),
        ("asked", "f8"),
        ("began", "f8"),
        ("ready", "f8"),
        ("done", "f8"),
    ]
)
HIT, JOINED, LOADED, NATIVE, FAILED = 0, 1, 2, 3, 4
HOW: Final = ("hit", "joined", "loaded", "native", "failed")
TIMES: Final = ("asked", "began", "ready", "done")

Outcomes = npt.NDArray[np.void]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def empty(n: int = 0) -> Outcomes:
    """n rows of zeros, OUTCOME[n]."""
    return np.zeros(n, dtype=OUTCOME)


def ok(outcomes: Outcomes) -> Mask:
    """Which requests were served, bool[n]."""
    mask: Mask = outcomes["how"] != FAILED
    return mask


def latency(outcomes: Outcomes) -> Floats:
    """Seconds from asking to the first result, float64[n]."""
    seconds: Floats = outcomes["done"] - outcomes["asked"]
    return seconds


def wait(outcomes: Outcomes) -> Floats:
    """Seconds from asking until the function starts, float64[n]: what a request waits for a free client."""
    seconds: Floats = outcomes["began"] - outcomes["asked"]
    return seconds


def ready(outcomes: Outcomes) -> Floats:
    """Seconds from asking until the weights are usable, float64[n]."""
    seconds: Floats = outcomes["ready"] - outcomes["asked"]
    return seconds


def join(parts: Iterable[Outcomes]) -> Outcomes:
    """Rows of all parts in order of request number, as when one client had written them all."""
    rows = np.concatenate([empty(), *parts])
    return rows[np.argsort(rows["request"], kind="stable")]


def validate(outcomes: Outcomes, models: int | None = None, what: str = "the outcomes") -> None:
    """Check types, ranges and the order of times as the module states it; raises BadInput naming the first bad row.

    models: how many models there are, where it is known; `what` names the rows in the message.
    """
    if outcomes.dtype != OUTCOME:
        raise BadInput(f"{what} cannot be read", "its columns are not those of outcomes")
    served = ok(outcomes)
    asked, began, ready_, done = (outcomes[name] for name in TIMES)
    ordered = (asked <= began) & (began <= ready_) & (ready_ <= done)
    checks = (
        (
            "its request, client or model is negative",
            (outcomes["request"] < 0) | (outcomes["client"] < 0) | (outcomes["model"] < 0),
        ),
        ("it names a model that is not there", outcomes["model"] >= (models if models is not None else math.inf)),
        ("it was served in no known way", outcomes["how"] >= len(HOW)),
        ("its times are not numbers", ~(np.isfinite(asked) & np.isfinite(done))),
        ("its times are out of order", np.where(served, ~ordered, ~(asked <= done))),
    )
    for why, bad in checks:
        if bad.any():
            raise BadInput(f"{what} cannot be used", f"row {int(np.argmax(bad))}: {why}")


def to_lines(outcomes: Outcomes) -> Iterator[str]:
    """One JSON object a row, without newline: `how` as a word, times that are no numbers as null."""
    for row in outcomes:
        yield json.dumps({name: _plain(name, row[name].item()) for name in OUTCOME.names or ()}, separators=(",", ":"))


def from_lines(lines: Iterable[str], what: str = "the outcomes") -> Outcomes:
    """The rows that `to_lines` wrote; a torn last line (its writer was killed) is left out. Raises BadInput."""
    rows: list[tuple[Any, ...]] = []
    broken: str | None = None
    for number, line in enumerate(lines, 1):
        if broken is not None:
            raise BadInput(f"{what} cannot be read", broken)
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            broken = f"line {number} is no outcome"
    try:
        table = np.array(rows, dtype=OUTCOME) if rows else empty()
    except OverflowError as error:
        raise BadInput(f"{what} cannot be read", f"a number is too large ({error})") from None
    validate(table, what=what)
    return table


def to_bytes(outcomes: Outcomes) -> bytes:
    """The rows in NumPy's .npy format (45 bytes a row)."""
    buffer = io.BytesIO()
    np.save(buffer, outcomes, allow_pickle=False)
    return buffer.getvalue()


def from_bytes(data: bytes, what: str = "the outcomes") -> Outcomes:
    """The rows that `to_bytes` wrote; raises BadInput for anything else."""
    try:
        rows = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise BadInput(f"{what} cannot be read", str(error)) from None
    validate(rows, what=what)
    return np.asarray(rows)


def _plain(name: str, value: Any) -> Any:
    if name == "how":
        return HOW[value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _row(fields: dict[str, Any]) -> tuple[Any, ...]:
    numbers = [int(fields[name]) for name in ("request", "client", "model")]
    times = [math.nan if fields[name] is None else float(fields[name]) for name in TIMES]
    return (*numbers, HOW.index(fields["how"]), *times)
