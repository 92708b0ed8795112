"""Warm and cold page caches, made and proven.

Cold: the files of a model are dropped from the page cache right before a request, then looked at: what still is there
is written down with the request. A file that another process maps or reads at that moment stays in part, and the figure
says so. Warm: every file in play is read once before the run, and looked at before and after: a machine without room
for them is not called warm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np

from trims.linux import pagecache
from trims.linux.atomic import translate
from trims.workload.setting import Coldness


def cached(files: Iterable[str]) -> float:
    """The share of these files' bytes that is in the page cache, 0 to 1; 1 for no bytes."""
    found = [pagecache.resident(path) for path in files]
    total = sum(size for _, size in found)
    return sum(here for here, _ in found) / total if total else 1.0


def chill(files: Sequence[str]) -> float:
    """Drop the files from the page cache; the share of their bytes that is there nevertheless."""
    for path in files:
        pagecache.drop(path)
    return cached(files) if any(os.path.getsize(path) for path in files) else 0.0


def heat(models: Sequence[Sequence[str]]) -> None:
    """Bring the files of every model into the page cache. Raises TrimsError for one that cannot be read."""
    for files in models:
        for path in files:
            try:
                if cached([path]) < 1.0:
                    pagecache.bring(path)
            except OSError as error:
                raise translate(error, f"reading {path}") from None


def look(models: Sequence[Sequence[str]]) -> list[float]:
    """The cached share of each model's files."""
    return [cached(files) for files in models]


def found(cache: str, shares: Sequence[float]) -> Coldness | None:
    """What many looks found; None for no look at all."""
    if not len(shares):
        return None
    values = np.asarray(shares, dtype=np.float64)
    return Coldness(cache, float(values.min()), float(values.mean()), float(values.max()), len(values))
