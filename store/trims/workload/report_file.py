"""Reports on disk: read with one line when they are none, written whole or not at all."""

from __future__ import annotations

import os

from trims.errors import BadInput, UsageError
from trims.linux import atomic
from trims.workload import report


def read(path: str) -> report.Report:
    """The report in a file. Raises BadInput when it cannot be read or is none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadInput(f"the report {path} cannot be read", os.strerror(error.errno or 0)) from None
    return report.from_json(data, path)


def check_directory(path: str) -> None:
    """Raise UsageError when no file can be written there."""
    directory = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(directory):
        raise UsageError(f"cannot write {path}", "there is no such directory")
    if not os.access(directory, os.W_OK):
        raise UsageError(f"cannot write {path}", "its directory is not writable")


def check(path: str) -> None:
    """Raise UsageError when a file of that name is there and is no report: it is somebody's."""
    if os.path.exists(path):
        try:
            read(path)
        except BadInput as error:
            raise UsageError(f"{path} is not replaced", error.why or error.what, "choose another --output") from None


def write(path: str, data: str | bytes) -> None:
    """Make the file hold exactly `data`; a pipe or a device, as /dev/stdout, is written to.

    Raises a TrimsError that names the file for what the file system refuses.
    """
    target, raw = os.path.abspath(path), data.encode() if isinstance(data, str) else data
    try:
        if atomic.is_odd(target):
            with open(target, "wb") as file:
                file.write(raw)
            return
        atomic.replace(target, raw, os.path.dirname(target), durable=False)
    except OSError as error:
        raise atomic.translate(error, f"writing {path}") from None
