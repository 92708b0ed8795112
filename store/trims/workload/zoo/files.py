"""The directory of built models: whole files under names that say what they are, and `zoo.json`, which says more.

A file's entry is in zoo.json before the file has its name, so every file with an entry and the entry's size is whole
and ours, and one without an entry is the user's: it is never replaced. One build at a time holds the directory; what a
killed one left behind (locked temporary files) the next one removes. Nothing else is ever removed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from trims.errors import BadInput, LockTimeout, NoSpace
from trims.linux import atomic, flock
from trims.units import format_size

MANIFEST = "zoo.json"
SCHEMA = "trims.zoo/1"
_SUFFIX = ".zoo-part"

Entry = dict[str, Any]


class Directory:
    """A directory of built models, held by this process; see `held`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._entries = read_manifest(path)

    def entry(self, file: str) -> Entry | None:
        """The entry of `file` when it is there, whole; None when it must be built.

        Raises BadInput when something that no build made has that name.
        """
        entry = self._entries.get(file)
        try:
            size = os.stat(os.path.join(self.path, file)).st_size
        except FileNotFoundError:
            return None
        if entry is None:
            where = os.path.join(self.path, file)
            raise BadInput(
                f"{where} is in the way", f"{MANIFEST} does not list it", "move it, or choose another directory"
            )
        return entry if size == entry["size"] else None

    def add(self, file: str, fill: Callable[[int], Entry]) -> Entry:
        """Make `file` hold what `fill` writes to a descriptor, whole or not at all.

        fill returns what zoo.json shall say of the file; that, with the file's name and size, is the answer.
        """
        with _translated("building a model"), atomic.staged(self.path, _SUFFIX) as part:
            fd = os.open(part, os.O_RDWR | os.O_CLOEXEC)
            try:
                entry = fill(fd)
                size = os.fstat(fd).st_size
                os.fchmod(fd, 0o644)
            finally:
                os.close(fd)
            self._entries[file] = {"file": file, **entry, "size": size}
            self._write()
            atomic.publish(part, os.path.join(self.path, file))
        return self._entries[file]

    def _write(self) -> None:
        document = {"schema": SCHEMA, "models": [self._entries[file] for file in sorted(self._entries)]}
        text = json.dumps(document, indent=1) + "\n"
        atomic.replace(os.path.join(self.path, MANIFEST), text.encode(), self.path, durable=False)

    def check_space(self, nbytes: int) -> None:
        """Raises NoSpace unless the file system can hold `nbytes` more bytes, and a hundredth for its own needs."""
        found = os.statvfs(self.path)
        free, need = found.f_bavail * found.f_frsize, nbytes + nbytes // 100
        if need > free:
            why = f"it needs {format_size(need)}, {self.path} has {format_size(free)} free"
            raise NoSpace(
                "the zoo does not fit", why, "free some space, choose another directory, or a smaller --scale"
            )


@contextmanager
def held(path: str) -> Iterator[Directory]:
    """Make the directory `path` when missing and hold it. Raises LockTimeout at once when another build holds it."""
    path = os.path.abspath(path)
    with _translated("making the directory of the zoo"):
        atomic.make_directory(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not flock.try_lock(fd, exclusive=True):
            hint = "wait until it is done, or choose another directory"
            raise LockTimeout("the zoo is being built", f"another process is at work in {path}", hint)
        _sweep(path)
        yield Directory(path)
    finally:
        os.close(fd)


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise atomic.translate(error, doing) from error


def _sweep(path: str) -> None:
    """Remove the temporary files of builds that were killed: those whose writer's lock is gone."""
    for name in os.listdir(path):
        if not name.startswith("t-") or not name.endswith(_SUFFIX):
            continue
        part = os.path.join(path, name)
        fd = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(part)
        except OSError:
            pass  # its writer lives, whoever that is
        finally:
            os.close(fd)


def read_manifest(path: str) -> dict[str, Entry]:
    """File → entry, as zoo.json has it. Raises BadInput when it is none of ours."""
    where = os.path.join(path, MANIFEST)
    try:
        with open(where, "rb") as file:
            document = json.load(file)
        if document["schema"] != SCHEMA:
            raise BadInput(f"{where} has an unknown form", str(document["schema"]), "choose another directory")
        return {entry["file"]: {**entry, "size": int(entry["size"])} for entry in document["models"]}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{where} is damaged", str(error), "choose another directory, or remove this one") from None
