"""Imports for clients that may not write the store: a process of its own for each, and a channel from client to it.

The manager makes the channel and hands out its two ends; it never holds a file of a client's, since even closing one
can hang. One import a user runs at a time, RUNNING in all; the others wait their turn. An import ends with its client's
connection, with its own process, and with the manager, and leaves nothing: what a killed process left is swept up.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from trims.disk import gc
from trims.disk.reader import Cancelled
from trims.disk.sharing import group_number
from trims.disk.store import Store
from trims.errors import LockTimeout, TimedOut, TrimsError, UsageError, rebuild
from trims.linux import process
from trims.manager.connection import Connection
from trims.manager.executor import Executor
from trims.manager.parking import Lookup, Parking
from trims.manager.server import Server
from trims.manager.variants import Errand, Variants
from trims.manager.workers import Mailbox, Pool
from trims.refs import parse_ref
from trims.wire import messages as wm
from trims.wire.framing import encode

RUNNING = 4
STALL = 600.0
"""Seconds without a word after which an import's process is given up: a slow disk may flush for minutes."""
MOST_FILES = 2000
_GRACE = 5.0  # seconds from asking the process to end to making it
_LINE = 1 << 20
_MODULE = "trims.manager.import_child"

Item = dict[str, Any]


class Importing:
    """Serves Import. forget: told of each ref that has changed."""

    def __init__(
        self,
        store: Store,
        variants: Variants,
        forget: Callable[[str], None],
        executor: Executor,
        server: Server,
        mailbox: Mailbox,
    ) -> None:
        self._store, self._variants, self._forget = store, variants, forget
        self._executor, self._server = executor, server
        self._mailbox, self._parking = mailbox, Parking(executor, server)
        self._turn = threading.Semaphore(RUNNING)
        self._pools: dict[int, Pool] = {}
        self._jobs: set[_Job] = set()
        self.rules: dict[type, Callable[[Connection, Any, float], None]] = {wm.Import: self._import}
        if store.system:
            self._pool(-1).run(self._sweep, lambda _: None)

    def close(self) -> None:
        """End all of them."""
        for job in list(self._jobs):
            job.cancel()
        for pool in self._pools.values():
            pool.close()

    def _import(self, connection: Connection, m: wm.Import, _now: float) -> None:
        ref = parse_ref(m.ref)
        _check_names(m.files)
        if not self._store.system and (m.group or m.mode is not None):
            raise UsageError(f"{ref} is not imported for others", "the store is of one user's scope")
        job = _Job()
        self._jobs.add(job)
        _, uid, gid = process.peer(connection.sock)
        tenant = connection.tenant
        order = {
            "store": self._store.root, "staging": f"{self._store.paths.tmp}/t-{os.urandom(8).hex()}.import",
            "parent": os.getpid(), "ref": ref, "files": m.files, "directory": m.directory, "format": m.format,
            "codec": m.codec, "labels": m.labels, "if_exists": m.if_exists, "mode": m.mode, "uid": uid, "gid": gid,
            "groups": sorted(tenant.groups) if tenant else [], "operator": tenant is None,
        }  # fmt: skip

        def offer(fd: int) -> None:
            frame = encode(wm.Channel(m.id))
            self._mailbox.post(lambda: self._server.send(connection, frame, [fd], given=True))

        def progress(done: int, total: int) -> None:
            frame = encode(wm.Progress(m.id, done, total))
            self._mailbox.post(lambda: self._server.send(connection, frame))

        def work() -> Item:
            try:
                with self._turn:
                    item = job.do({**order, "group": group_number(m.group)}, offer, progress)
                    return {**item, "variant": self._derive(item, job) if m.variant else None}
            finally:
                self._jobs.discard(job)
                self._clean(str(order["staging"]), job.failed)

        def done(item: Item) -> None:
            self._forget(ref)
            self._executor.recording.answered(connection, m.id, [item])
            self._server.send(connection, encode(wm.Result(m.id, [item])))

        lookup = Lookup(connection, m.id, work, done, errand=job)
        self._parking.park(lookup, self._pool(uid), float("inf"))

    def _derive(self, item: Item, job: _Job) -> str | None:
        """The key of the form for ONNX Runtime; not having it costs time later, nothing else."""
        skipped = item["already"] and item["nbytes_in"] == 0
        if item["format"] != "onnx" or skipped:
            return None
        try:
            return self._variants.build(str(item["digest"]), job)
        except TrimsError:
            return None

    def _pool(self, uid: int) -> Pool:
        """One thread a user, so that nobody waits for the imports of another."""
        return self._pools.setdefault(uid, Pool(self._mailbox, "import", 1))

    def _clean(self, staging: str, failed: bool) -> None:
        """Take away what the process did not."""
        if os.path.lexists(staging):
            shutil.rmtree(staging, ignore_errors=True)
        if failed:
            self._sweep()

    def _sweep(self) -> None:
        try:
            gc.sweep(self._store)
        except LockTimeout:
            pass  # another import runs: whoever comes after it will
        except TrimsError as error:
            self._executor.write(f"what is left of an import stays until the next gc: {error}", "warning")


class _Job(Errand):
    """One import, from the thread that waits for its process. failed: it ended by itself, or was made to."""

    failed = False

    def cancel(self) -> None:
        """Ask the process to end; `do` makes it. From any thread."""
        with self._lock:
            self.cancelled = True
            if self._child is not None:
                self._child.terminate()

    def do(self, order: Item, offer: Callable[[int], None], progress: Callable[[int, int], None]) -> Item:
        """The process's result. offer: takes the client's end of the channel. Raises what it reported, Cancelled."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            with ours:
                child = self._start(ours.fileno())
            try:
                offer(theirs.detach())
                report = self._talk(child, order, progress)
            finally:
                child.kill()
                child.wait()
                for pipe in (child.stdin, child.stdout):
                    _close(pipe)
                with self._lock:
                    self._child = None
        if self.cancelled:
            self.failed = True
            raise Cancelled("nobody waits for this any more")
        return report

    def _start(self, channel: int) -> subprocess.Popen[bytes]:
        with self._lock:
            if self.cancelled:
                raise Cancelled("nobody waits for this any more")
            self._child = child = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(channel)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[channel],
                cwd="/",
            )
        return child

    def _talk(self, child: subprocess.Popen[bytes], order: Item, progress: Callable[[int, int], None]) -> Item:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps(order).encode())
            child.stdin.close()
        except BrokenPipeError:
            pass  # its end says why
        for line in self._lines(child.stdout.fileno()):
            if "result" in line:
                return dict(line["result"])
            if "error" in line:
                error = line["error"]
                raise rebuild(error["code"], error["what"], error["why"], error["hint"], error["details"])
            if "total" in line:
                progress(int(line["done"]), int(line["total"]))
        self.failed = True
        if self.cancelled:
            raise Cancelled("nobody waits for this any more")
        raise TrimsError(f"{order['ref']} is not imported", "the process that does it was killed", "import it again")

    def _lines(self, fd: int) -> Any:
        """What it says, until it ends, is silent for too long, or has been told to end and does not."""
        data, heard, ending = b"", time.monotonic(), 0.0
        while True:
            ready, _, _ = select.select([fd], [], [], 1.0)
            now = time.monotonic()
            ending = ending or (now if self.cancelled else 0.0)
            if ending and now - ending > _GRACE:
                return
            if not ready:
                if now - heard > STALL:
                    self.failed = True
                    raise TimedOut("the import was given up", f"nothing has happened for {STALL:g} s")
                continue
            heard, chunk = now, os.read(fd, 1 << 16)
            data += chunk
            *lines, data = data.split(b"\n")
            if not chunk or len(data) > _LINE:
                return
            yield from map(json.loads, lines)


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # what was not written is not wanted any more


def _check_names(names: list[str]) -> None:
    """Raise UsageError unless they are different names of files inside one directory."""
    if not 0 < len(names) <= MOST_FILES or len(set(names)) != len(names):
        raise UsageError("bad files for an import", f"it takes 1 to {MOST_FILES} different names")
    for name in names:
        parts = name.split("/")
        if "\0" in name or len(name) > 1000 or any(part in ("", ".", "..") for part in parts):
            raise UsageError(f"bad name of a file {name[:100]!r}", "", "give it relative to the model's directory")
