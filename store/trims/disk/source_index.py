"""All records of sources in memory, for a service that is asked about them by those who cannot read the store.

It is brought up to the store when that has changed; a file is read once for each state of it. To look something up in
it takes no reading, so that the time an answer takes tells nothing of records which are not for the asker.
"""

from __future__ import annotations

import json
import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from trims.disk.fingerprint import FileKey
from trims.disk.known import Known, fields_of, parse, read
from trims.disk.sources import ODD
from trims.paths import StorePaths
from trims.permission import Access

SLACK = 50_000_000  # ns: a directory that was stamped less than this ago may change again without another stamp
Content = tuple[int, str]
"""Size and BLAKE3."""
T = TypeVar("T")


class SourceIndex:
    """The records of one store, as of the last `refresh`. `generation` is another number whenever that found more."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths
        self._records: _Files[tuple[Content, dict[str, bytes]]] = _Files(_record)
        self._keys: _Files[tuple[FileKey, str, Access | None]] = _Files(_key)
        self._lock = threading.Lock()
        self._seen = -1
        self.generation = 0
        self.contents: dict[Content, dict[str, bytes]] = {}  # by model what `unpacked` takes
        self.keys: dict[FileKey, tuple[str, Access | None]] = {}

    def refresh(self) -> None:
        """Look what has changed. From any thread."""
        with self._lock:
            root = self._paths.sources
            stamp = _mtime(root)
            if stamp == self._seen:
                return
            begun = time.time_ns()
            changed = self._records.refresh([f"{root}/{name}" for name in _names(root) if name.isdecimal()])
            changed |= self._keys.refresh([f"{root}/keys/{name}" for name in _names(f"{root}/keys")])
            self._seen = stamp if stamp < begun - SLACK else -1
            if changed:
                self.contents = dict(self._records.values())
                self.keys = {key: (file, access) for key, file, access in self._keys.values()}
                self.generation += 1


class _Files(Generic[T]):
    """What `parse` makes of each file in some directories, read again only where file and directory have changed."""

    def __init__(self, parse: Callable[[str], T]) -> None:
        self._parse = parse
        self._found: dict[str, tuple[int, dict[str, tuple[tuple[int, int], T | None]]]] = {}

    def values(self) -> Iterator[T]:
        for _, files in self._found.values():
            yield from (value for _, value in files.values() if value is not None)

    def refresh(self, directories: list[str]) -> bool:
        """Whether anything is not as it was."""
        before, self._found = self._found, {}
        changed = before.keys() != set(directories)
        for directory in directories:
            begun = time.time_ns()
            stamp = _mtime(directory)
            was, files = before.get(directory, (-1, {}))
            if stamp != was:
                now = {path: self._file(path, files) for path in _records(directory)}
                changed = changed or now != files
                files = now
            self._found[directory] = (stamp if stamp < begun - SLACK else -1, files)
        return changed

    def _file(self, path: str, files: dict[str, tuple[tuple[int, int], T | None]]) -> tuple[tuple[int, int], T | None]:
        try:
            status = os.stat(path)
            state = (status.st_ino, status.st_mtime_ns)
            known = files.get(path)
            return known if known is not None and known[0] == state else (state, self._parse(path))
        except ODD:
            return (0, 0), None  # looked at again when something in its directory changes


def unpacked(packed: bytes) -> list[Known]:
    """What a content is, of one model."""
    return parse(json.loads(zlib.decompress(packed)))


def _record(path: str) -> tuple[Content, dict[str, bytes]]:
    models: dict[str, list[Known]] = {}
    for known in parse(read(path)):
        models.setdefault(known.model, []).append(known)
    packed = {model: zlib.compress(json.dumps(fields_of(known)).encode(), 1) for model, known in models.items()}
    (size, digest), *_ = {(one.size, one.file) for known in models.values() for one in known}
    if not path.endswith(f"/{size}/{digest}.json"):
        raise ValueError(f"{path} speaks of another file")
    return (size, digest), packed


def _key(path: str) -> tuple[FileKey, str, Access | None]:
    fields: dict[str, Any] = read(path)
    access = fields.get("access")
    return FileKey(*fields["key"]), str(fields["file"]), Access(*access) if access else None


def _records(directory: str) -> list[str]:
    return [
        f"{directory}/{name}"
        for name in _names(directory)
        if name.endswith(".json") and not name.endswith(".native.json")
    ]


def _names(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
