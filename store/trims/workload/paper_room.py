"""Which models the paper's set is of, and whether they fit: refused before any work, with the way out."""

from __future__ import annotations

import os

from trims import units
from trims.errors import NoRoom, NoSpace
from trims.linux import process
from trims.workload import zoo
from trims.workload.models import ModelSpec
from trims.workload.paper_set import PaperSet, need


def specs(chosen: PaperSet) -> tuple[ModelSpec, ...]:
    return tuple(model.spec for model in (*zoo.paper_models(chosen.scale), *large_models(chosen)))


def large_models(chosen: PaperSet) -> list[zoo.ZooModel]:
    return zoo.large_models(chosen.scale, chosen.large) if chosen.large else []


def check(chosen: PaperSet, directory: str) -> None:
    """Raise NoSpace or NoRoom, naming `--scale`, when the disk of `directory` or the memory cannot hold the set."""
    models = specs(chosen)
    small = [model for model in models if model.family != "large"]
    large = [model for model in models if model.family == "large"]
    wanted = need(small, large, max(chosen.clients), chosen.function in ("auto", "onnxruntime"))
    hint = "take smaller models with --scale"
    ours = (
        os.path.join(directory, name) for name in ("models", "store")
    )  # of a run before, in a directory that is kept
    there = sum(_size(f"{base}/{name}") for own in ours for base, _, names in os.walk(own) for name in names)
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory) or "."
    disk = os.statvfs(directory)
    free = disk.f_bavail * disk.f_frsize + min(there, wanted["disk"])
    if wanted["disk"] > free:
        why = f"{units.format_size(wanted['disk'])} is needed, {units.format_size(free)} is free"
        raise NoSpace("the paper's models do not fit on the disk", why, f"{hint}, or name another --work-dir")
    memory = process.memory_available()
    if wanted["memory"] > memory:
        why = f"{units.format_size(wanted['memory'])} is needed, {units.format_size(memory)} is available"
        raise NoRoom("the paper's models do not fit into memory", why, hint)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
