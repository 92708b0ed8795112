"""The process that does one import for a client: it asks for the files one by one, copies them, and stores them.

`python -m trims.manager.import_child FD`: on FD the client gives its files (see Channel in wire.messages); the order
comes as JSON on standard input; lines of JSON go to standard output: progress, and at the end a result or an error. It
is this process, not the manager, that touches what a client gave: files may hang, lie about their size, or change. So
they are copied first, into a locked directory of the store's `tmp`, which goes with this process.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable
from typing import Any

from trims import units
from trims.disk import fingerprint
from trims.disk.catalog import Catalog
from trims.disk.fingerprint import FileKey
from trims.disk.importers import open_source
from trims.disk.ingest import import_model
from trims.disk.sources import Sources
from trims.disk.store import Store, open_store
from trims.errors import BadInput, NoSpace, ProtocolError, TrimsError
from trims.linux import atomic, confine, fdpass, flock
from trims.permission import Asker, Importer

PATIENCE = 60.0
"""Seconds that a client may take to give a file."""
_CHUNK = 8 << 20
_TELL = 0.1  # seconds between two lines of progress
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)

Tell = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    order = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # libraries write there

    def tell(line: dict[str, Any]) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    signal.signal(signal.SIGTERM, _end)
    try:
        confine.confine(order["parent"], signal.SIGTERM)
        with socket.socket(fileno=int(arguments[0])) as channel:
            tell({"result": _bring(order, channel, tell)})
    except TrimsError as error:
        tell({"error": error.to_dict()})
    except Exception as error:
        tell({"error": TrimsError(f"{order['ref']} is not imported", f"{type(error).__name__}: {error}").to_dict()})
    return 0


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: what is going on from here is tidying up
    raise SystemExit(1)


def _bring(order: dict[str, Any], channel: socket.socket, tell: Tell) -> dict[str, Any]:
    store, directory, importer = open_store(order["store"]), order["staging"], None
    if store.system:
        asker = Asker(order["uid"], order["gid"], frozenset(order["groups"]))
        importer = Importer(asker, order["operator"], order["group"], order["mode"])
        _check_name(store, order["ref"], importer)
    os.mkdir(directory, 0o700)
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        if not flock.try_lock(lock, exclusive=False):  # kept until this process ends: it says that somebody is here
            raise TrimsError(f"{order['ref']} is not imported", "a collector took its files away", "import it again")
        os.chdir(directory)  # so that messages name files as the client does
        copying = _Copying(channel, order["files"], tell)
        copying.all()
        item = _store(order, store, importer, tell)
        for name, status in copying.settled.items():  # so that the client's own files are known without a look inside
            Sources(store.paths).remember_original(name, status)
        return item
    finally:
        os.chdir("/")
        shutil.rmtree(directory)


class _Copying:
    """The files, each asked for when the one before it is here."""

    def __init__(self, channel: socket.socket, names: list[str], tell: Tell) -> None:
        self._channel, self._names, self._tell, self._told = channel, names, tell, 0.0
        self._copied = 0
        self.settled: dict[str, os.stat_result] = {}  # of files that were, before and after, what they are now
        channel.settimeout(PATIENCE)

    def all(self) -> None:
        for number, name in enumerate(self._names):
            fd = self._ask(number, name)
            try:
                self._copy(fd, name)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise atomic.translate(error, f"copying {name}") from None
                raise BadInput(f"cannot import {name}", f"it cannot be read: {os.strerror(error.errno or 0)}") from None
            finally:
                os.close(fd)

    def _ask(self, number: int, name: str) -> int:
        wanted = str(number).encode()
        try:
            self._channel.send(wanted)
            said, fds = fdpass.receive(self._channel, 64)
        except OSError:
            said, fds = b"", []
        if said != wanted or len(fds) != 1:
            fdpass.close_all(fds)
            raise ProtocolError(f"cannot import {name}", "its client did not give it")
        return fds[0]

    def _copy(self, fd: int, name: str) -> None:
        """What is in the file now, as much as it says to have; it may change meanwhile, our copy does not."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadInput(f"cannot import {name}", "it is not a file")
        _check_space(name, found.st_size)
        key = FileKey.of(found)
        settled = fingerprint.settled(key)
        os.makedirs(os.path.dirname(name) or ".", 0o700, exist_ok=True)
        to = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            at, transfer = 0, _transfer_within
            while at < found.st_size:
                try:
                    moved = transfer(fd, to, min(_CHUNK, found.st_size - at), at)
                except OSError as error:
                    if transfer is _transfer or error.errno not in _NOT_HERE:
                        raise
                    transfer = _transfer  # another file system: by way of our memory
                    continue
                if moved == 0:
                    raise BadInput(f"cannot import {name}", "it became shorter meanwhile", "import it again")
                at += moved
                self._go_on(moved)
        finally:
            os.close(to)
        if settled and FileKey.of(os.fstat(fd)) == key:
            self.settled[name] = found

    def _go_on(self, moved: int) -> None:
        self._copied += moved
        now = time.monotonic()
        if now - self._told >= _TELL:
            self._told = now
            self._tell({"done": self._copied, "total": 0})


def _transfer_within(fd: int, to: int, nbytes: int, at: int) -> int:
    return os.copy_file_range(fd, to, nbytes, offset_src=at, offset_dst=at)


def _transfer(fd: int, to: int, nbytes: int, at: int) -> int:
    data = os.pread(fd, nbytes, at)
    atomic.write_all(to, data, at)
    return len(data)


def _check_space(name: str, nbytes: int) -> None:
    """Raise NoSpace when a copy and a container of it will not fit."""
    disk = os.statvfs(".")
    free = disk.f_bavail * disk.f_frsize
    if 2 * nbytes > free:
        raise NoSpace(
            f"{name} does not fit into the store",
            f"copied and stored it needs {units.format_size(2 * nbytes)}, the disk has {units.format_size(free)} free",
            "ask the operators for space",
        )


def _check_name(store: Store, ref: str, importer: Importer) -> None:
    """Raise NotPermitted before anything is copied; it is asked again when the ref is written."""
    entry = Catalog(store.paths).find(ref)
    importer.access(ref, entry is not None, entry.access if entry else None)


def _store(order: dict[str, Any], store: Store, importer: Importer | None, tell: Tell) -> dict[str, Any]:
    told = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= _TELL:
            told = now
            tell({"done": done, "total": total})

    with open_source("." if order["directory"] else order["files"][0], order["format"] or "auto") as source:
        source.origin["path"] = order["files"][0]
        result = import_model(
            store,
            source,
            order["ref"],
            codec=order["codec"] or None,
            labels=order["labels"],
            if_exists=order["if_exists"],
            progress=progress,
            importer=importer,
        )
    return result.to_dict()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
