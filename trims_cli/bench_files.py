"""The files that a workload's report is read from and written to, each whole or not there."""

from __future__ import annotations

import os

from trims.errors import BadInput
from trims.linux import atomic
from trims.workload import report


def write(path: str, data: bytes) -> None:
    """Make the file hold exactly `data`. Raises TrimsError."""
    target = os.path.abspath(path)
    try:
        atomic.replace(target, data, os.path.dirname(target), durable=False)
    except OSError as error:
        raise atomic.translate(error, f"writing {path}") from None


def read(path: str) -> report.Report:
    """The report in a file. Raises BadInput."""
    try:
        with open(path, "rb") as file:
            return report.from_json(file.read(), path)
    except OSError as error:
        raise BadInput(f"the report {path} cannot be read", os.strerror(error.errno or 0)) from None


def draw(kept: report.Report, path: str) -> None:
    """The map as one picture, in the form that the file's name says."""
    from trims.workload import pictures

    form = os.path.splitext(path)[1].lstrip(".").lower()
    write(path, pictures.render(kept, pictures.names(kept)[0], form))
