"""What a file is, as the manager knows it: for programs that cannot read the store, but have the manager's socket.

The same questions as those of `disk.sources.Sources`. The manager is asked by the file's key first: what it has read
itself it knows again. Where it only knows that a file of this size may be one, the content is hashed here, once in a
process for each file. Nothing that is found here is left anywhere.
"""

from __future__ import annotations

import os
import time

from trims.client import choosing, connections
from trims.disk import fingerprint
from trims.disk.fingerprint import FileKey
from trims.disk.known import Known, parse
from trims.disk.sources import ODD, is_whole
from trims.errors import ManagerNotRunning, ManagerUnreachable
from trims.wire.messages import Recognise

_PATIENCE = 5.0  # seconds that the manager may take: a program's load waits for it
_QUIET = 5.0  # seconds for which a manager that does not answer is not asked again
_MOST = 10_000  # files whose digest is kept
_HEX = frozenset("0123456789abcdef")


class ManagerSources:
    """The files that the manager of this process knows. socket: where it is; None looks where managers usually are."""

    def __init__(self, socket: str | None = None) -> None:
        self._socket = socket
        self._digests: dict[FileKey, str] = {}
        self._silent_until = 0.0

    def find(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> Known | None:
        """What the file at `path` is, now; None when that is not known, or not ours to know. Raises nothing."""
        try:
            path = os.fsdecode(path)
            found = (known for known in self._look(path)[1] if is_whole(known, path, self._digest))
            return next(found, None)
        except ODD:
            return None

    def find_bytes(self, data: bytes | bytearray | memoryview) -> Known | None:
        """What these bytes are, when a file that needs no other one has them."""
        try:
            with memoryview(data) as view, view.cast("B") as plain:
                if not self._ask(plain.nbytes):
                    return None
                from blake3 import blake3

                found = self._ask(plain.nbytes, file=str(blake3(plain).hexdigest()))
            return next((known for known in map(_known, found) if not known.companions), None)
        except ODD:
            return None

    def note_native(self, known: Known, framework: str, seconds: float) -> None:
        """Nothing: a client's word about a machine is kept for nobody else."""

    def native(self, known: Known) -> dict[str, float]:
        """What native loads took is kept in the store."""
        return {}

    def _digest(self, path: str) -> tuple[str, int]:
        """(digest, size) of a file as it is now; "" where that is of no use. Raises ODD."""
        digest, found, size = self._look(path)
        return digest or (found[0].file if found else ""), size

    def _look(self, path: str) -> tuple[str, list[Known], int]:
        """(digest where it is known here, what the manager says of the file, its size). Raises ODD."""
        fd = fingerprint.open_for_reading(path)
        try:
            key = FileKey.of(os.fstat(fd))
            digest = self._digests.get(key, "")
            items = self._ask(key.size, list(key), digest)
            if items and "file" not in items[0]:
                digest, final = fingerprint.hashed(fd, key)
                if final and len(self._digests) < _MOST:
                    self._digests[key] = digest
                items = self._ask(key.size, file=digest)
        finally:
            os.close(fd)
        known = [_known(item) for item in items]
        if any(one.size != key.size or (digest and one.file != digest) for one in known):
            raise ValueError("the manager speaks of another file")
        return digest, known, key.size

    def _ask(self, size: int, key: list[int] | None = None, file: str = "") -> list[dict[str, object]]:
        """The first manager's answer. Raises TrimsError."""
        if time.monotonic() < self._silent_until:
            return []
        numbers = key or []
        for path in [self._socket] if self._socket else choosing.usual()[1]:
            try:
                return connections.ask(path, lambda id: Recognise(id, size, numbers, file), _PATIENCE)
            except ManagerNotRunning:
                continue
            except ManagerUnreachable:
                self._silent_until = time.monotonic() + _QUIET
                raise
        return []


def _known(item: dict[str, object]) -> Known:
    """An item of the manager's. Raises Damaged, LookupError."""
    fields = {**item, "model": item["digest"]}
    model = {name: fields[name] for name in ("kind", "model", "ref", "tensors", "companions", "extra")}
    (known,) = parse({"file": item["file"], "size": item["size"], "models": [model]})
    return known
