"""Where a run measures: the GPU, how large its models may be, and where they lie. Given to every item as JSON."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trims.linux import process
from trims.units import format_size

MIB, GIB = 1 << 20, 1 << 30
VARIABLE = "GPU_CHECK_PLACE"
"""The environment variable that names the JSON file of an item's place."""


class Skip(Exception):
    """An item cannot be done here; the text says what is lacking."""


class Failed(Exception):
    """An item found that something does not hold, and what it found else."""

    def __init__(self, what: str, found: dict[str, Any]) -> None:
        super().__init__(what)
        self.found = found


@dataclass(frozen=True)
class Place:
    """device: what bench.gpu.facts found of it. directory: of the simulated GPUs, "" for a real one.

    work: a directory for models and stores, gone afterwards; sockets: a short one for sockets.
    small, middle, large: bytes of the models to measure with, 0.1, 1 and 15 GiB where there is room. rounds: times that
    what takes long is repeated. scale: of the paper's models. notes: what had to be smaller, and why.
    """

    device: dict[str, Any]
    directory: str
    work: str
    sockets: str
    small: int = 100 * MIB
    middle: int = GIB
    large: int = 15 * GIB
    rounds: int = 5
    scale: float = 0.25
    notes: list[str] = field(default_factory=list)

    @property
    def simulated(self) -> bool:
        return bool(self.device["simulated"])

    @property
    def uuid(self) -> str:
        return str(self.device["uuid"])

    def environment(self) -> dict[str, str]:
        """For the processes of an item: nothing of the user's own trims, and the GPUs of this place."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("TRIMS_", "XDG_"))}
        return env | ({"TRIMS_SIMULATED_GPUS": self.directory} if self.directory else {})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> Place:
        return cls(**json.loads(Path(path).read_text(encoding="utf-8")))


def choose(device: dict[str, Any], directory: str, work: str, sockets: str) -> Place:
    """The place for this device, with models no larger than its memory, the host's and the disk allow."""
    place = Place(device, directory, work, sockets)
    if place.simulated:
        tiny = {"small": 2 * MIB, "middle": 6 * MIB, "large": 16 * MIB, "rounds": 1, "scale": 0.002}
        return Place(device, directory, work, sockets, notes=["simulated: no figure"], **tiny)  # type: ignore[arg-type]
    free = shutil.disk_usage(work).free
    room = {
        "the GPU's free memory": (device["nbytes"] - device["used"]) // 4,
        "the disk's free space": max(0, free - 4 * GIB) // 2,  # the file, and what is made of it
        "the host's free memory": process.memory_available() * 2 // 5,
    }
    where, most = min(room.items(), key=lambda item: item[1])
    sizes, notes = {}, []
    for name, wanted in (("small", place.small), ("middle", place.middle), ("large", place.large)):
        sizes[name] = min(wanted, most // (64 * MIB) * (64 * MIB)) if wanted > most else wanted
        if sizes[name] != wanted:
            notes.append(f"{format_size(sizes[name])} instead of {format_size(wanted)}: {where} has no room for more")
    return Place(device, directory, work, sockets, notes=notes, **sizes)
