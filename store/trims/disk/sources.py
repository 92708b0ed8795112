"""What a file on disk is: which stored model was imported from these bytes, whatever the file is called and wherever.

The truth is the content: `sources/<size>/<BLAKE3>.json` says what a file of these bytes became. So that known files
are not hashed again, `sources/keys/<2 hex>/<device>-<inode>.json` remembers the digest that went with five numbers of
`stat` (disk.fingerprint). A file of a size that the store does not know costs two system calls; any other is hashed
once. Everything here only makes things faster: a record that is damaged, missing or of a newer trims is a file that
is not known, never an error, and a store that cannot be written remembers nothing more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from typing import Any

from trims.disk import fingerprint
from trims.disk.fingerprint import FileKey
from trims.disk.known import FORMAT, MAX_RECORD, PART, Known, SourceFile, fields_of, parse, read
from trims.errors import TrimsError
from trims.linux import atomic
from trims.paths import StorePaths

__all__ = ["FileKey", "Known", "SourceFile", "Sources"]

_MAX_MODELS = 64  # that one file is remembered to have become: of many users, each may have one of their own
Writing = Callable[[str], AbstractContextManager[None]]
ODD = (OSError, ValueError, TypeError, LookupError, BufferError, RecursionError, TrimsError)
"""What an odd path, or a file that is no record, can raise."""


class Sources:
    """The files that one store knows."""

    def __init__(self, paths: StorePaths) -> None:
        self._paths = paths

    def find(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Known | None:
        """What the file at `path` is, now; None when that is not known. Raises nothing, whatever the path is."""
        try:
            path = os.fsdecode(path)
            if not self._has_size(os.stat(path).st_size):
                return None
            digest, size = self._digest(path)
            found = (known for known in self.all_known(size, digest) if is_whole(known, path, self._digest))
            return next(found, None)
        except ODD:
            return None

    def find_bytes(self, data: bytes | bytearray | memoryview) -> Known | None:
        """What these bytes are, when a file that needs no other one has them."""
        try:
            with memoryview(data) as view, view.cast("B") as plain:
                if not self._has_size(plain.nbytes):
                    return None
                from blake3 import blake3

                found = self.all_known(plain.nbytes, blake3(plain).hexdigest())
            return next((known for known in found if not known.companions), None)
        except ODD:
            return None

    def record(self, files: Iterable[SourceFile], model: str, ref: str, writing: Writing) -> list[Known]:
        """Remember what an import read; gives what was remembered. The caller holds the store lock, shared.

        writing: locks the record of a digest against other writers. A file that is no longer what the import opened
        is left out, and so is one whose companion is.
        """
        made: list[Known] = []
        digests: dict[str, str | None] = {}
        for file in files:
            with suppress(*ODD):
                known = self._made(file, model, ref, digests)
                if known is not None:
                    with writing(known.file):
                        self._add(known)
                    made.append(known)
        return made

    def remember_original(self, copy: str, original: os.stat_result) -> None:
        """`copy` was made of `original`, which was settled before that and has not changed: its key means that content.

        Only for what has a record: nobody asks for other files. Not where whoever gave it could have made the key up.
        """
        with suppress(*ODD):
            digest, size = self._digest(copy)
            if fingerprint.is_lasting(FileKey.of(original)) and os.access(self._paths.source(size, digest), os.F_OK):
                self._remember(FileKey.of(original), digest, original)

    def note_native(self, known: Known, framework: str, seconds: float) -> None:
        """Remember how long a framework's own load of this file took on this machine, last."""
        if not 0.0 <= seconds < 1e9:
            return
        with suppress(*ODD):
            fields = {"format": FORMAT, "native": {**self.native(known), framework: round(float(seconds), 6)}}
            self.write(self._paths.source_native(known.size, known.file), fields, durable=False)

    def native(self, known: Known) -> dict[str, float]:
        """Framework to the seconds that its own load of this file took, as far as that was noted."""
        try:
            native = read(self._paths.source_native(known.size, known.file))["native"]
            return {str(name): float(seconds) for name, seconds in native.items()}
        except (*ODD, AttributeError):
            return {}

    def _has_size(self, size: int) -> bool:
        return os.access(f"{self._paths.sources}/{size}", os.F_OK)

    def _digest(self, path: str) -> tuple[str, int]:
        """(digest, size) of a file as it is now; remembered when it had to be read. Raises OSError."""
        fd = fingerprint.open_for_reading(path)  # also when the key is known: who may not read it learns nothing
        try:
            status = os.fstat(fd)
            key = FileKey.of(status)
            digest = self._remembered(key)
            if digest is None:
                digest, final = fingerprint.hashed(fd, key)
                if final:
                    self._remember(key, digest, status)
            return digest, key.size
        finally:
            os.close(fd)

    def _remembered(self, key: FileKey) -> str | None:
        try:
            fields = read(self._paths.source_key(key.dev, key.ino))
        except ODD:
            return None
        digest = fields.get("file")
        return digest if fields.get("key") == list(key) and isinstance(digest, str) else None

    def _remember(self, key: FileKey, digest: str, status: os.stat_result) -> None:
        access = [status.st_uid, status.st_gid, status.st_mode & 0o777]  # an `Access`
        with suppress(*ODD):
            path = self._paths.source_key(key.dev, key.ino)
            fields = {"access": access, "file": digest, "format": FORMAT, "key": list(key)}
            self.write(path, fields, durable=False)

    def all_known(self, size: int, digest: str) -> list[Known]:
        """What a content is, of the models that the store has: a model before a part, one with its name, the latest.

        Raises ODD, also where there is no record.
        """
        known = [one for one in parse(read(self._paths.source(size, digest))) if self.is_stored(one.model)]
        known = [one for one in known if (one.size, one.file) == (size, digest)]
        return sorted(known, key=lambda one: (one.kind == PART, not os.access(self._paths.entry(one.ref), os.F_OK)))

    def is_stored(self, model: str) -> bool:
        return os.access(self._paths.sidecar(model), os.F_OK)

    def _made(self, file: SourceFile, model: str, ref: str, digests: dict[str, str | None]) -> Known | None:
        """What there is to remember of one file that was read; None when it has changed. Raises OSError."""
        if file.key is None or FileKey.of(os.stat(file.path)) != file.key:
            return None
        digest, size = self._digest(file.path)
        if FileKey.of(os.stat(file.path)) != file.key:
            return None
        digests[os.path.realpath(file.path)] = digest
        companions = []
        for name, path in file.companions.items():
            other = digests.get(path)
            if other is None:
                return None
            companions.append((name, other))
        return Known(digest, size, file.kind, model, ref, file.tensors, tuple(companions), file.extra)

    def _add(self, known: Known) -> None:
        """Write a record, in front of what the same content is known to be else."""
        path = self._paths.source(known.size, known.file)
        before: list[Known] = []
        with suppress(*ODD):
            others = (one for one in parse(read(path)) if (one.model, one.kind) != (known.model, known.kind))
            before = [one for one in others if self.is_stored(one.model)]
        self.write(path, fields_of([known, *before[: _MAX_MODELS - 1]]))

    def write(self, path: str, fields: dict[str, Any], durable: bool = True) -> None:
        from trims.disk import sealed

        data = sealed.seal(fields)
        if len(data) <= MAX_RECORD:
            atomic.make_directory(os.path.dirname(path))
            atomic.replace(path, data, self._paths.tmp, durable=durable)
            with suppress(OSError):
                os.utime(self._paths.sources)  # whoever keeps what is here in memory sees that it is more


def is_whole(known: Known, path: str, digest: Callable[[str], tuple[str, int]]) -> bool:
    """Whether all files beside `path` that `known` needs are what they were."""
    try:
        return all(digest(_beside(path, name))[0] == file for name, file in known.companions)
    except OSError:
        return False


def _beside(path: str, name: str) -> str:
    """Where a file finds the one it calls `name`: beside the path that was opened, or beside the file itself."""
    near = os.path.join(os.path.dirname(path), name)
    return near if os.path.exists(near) else os.path.join(os.path.dirname(os.path.realpath(path)), name)
