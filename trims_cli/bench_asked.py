"""What was asked of bench workload on the command line, and how lists on it are read."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from trims.errors import UsageError
from trims.workload.setting import Setting


@dataclass(frozen=True, slots=True)
class Asked:
    """The flags of the command, as typed."""

    zoo: str | None
    models: Sequence[str]
    scale: float
    distribution: str
    share: str
    clients: str | None
    requests: int
    arrival: str | None
    shift_every: int
    seed: int
    policy: str
    min_resident: str
    budget: str
    setting: Setting
    side: str
    unlimited: bool
    trace_in: str | None
    trace: str | None
    output: str | None
    csv: str | None
    picture: str | None
    resume: str | None
    work_dir: str | None
    keep: bool


def shares(text: str) -> list[float]:
    """`50%` or `0.5`, with commas between several."""
    try:
        found = [float(word[:-1]) / 100 if word.endswith("%") else float(word) for word in _words(text)]
    except ValueError:
        raise UsageError(f"bad share {text!r}", "", "write it like 50% or 0.1,0.5,1") from None
    return list(dict.fromkeys(found))


def counts(text: str) -> list[int]:
    try:
        return list(dict.fromkeys(int(word) for word in _words(text)))
    except ValueError:
        raise UsageError(f"bad number of clients {text!r}", "", "write it like 4 or 1,2,8") from None


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def check_writable(path: str | None) -> None:
    """Raise UsageError for a file in a directory that is not there."""
    directory = os.path.dirname(os.path.abspath(path)) if path is not None else "/"
    if not os.path.isdir(directory):
        raise UsageError(f"cannot write {path}", "there is no such directory")
