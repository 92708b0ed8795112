"""The manager as one object: loop, machine, threads, index and journal, wired together; its beginning and its end.

Begin: what a dead manager left is read, its index marked as over, a new index put in place; then the socket is served.
End: no new connection, answers out, journal written, index closed, memory given up. The lock is the caller's, and goes
with the process.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable
from socket import socket

from trims import units
from trims.devices.base import Device
from trims.disk.store import Store
from trims.linux import fdpass, process
from trims.manager import runtime, telling
from trims.manager.asking import Asking
from trims.manager.connection import Connection
from trims.manager.discretion import Discretion
from trims.manager.doors import Doors
from trims.manager.executor import Executor
from trims.manager.gpu_watch import GpuWatch
from trims.manager.gpus import Gpus
from trims.manager.importing import Importing
from trims.manager.inheritance import Inheritance
from trims.manager.keeping import Keeper
from trims.manager.publisher import Publisher
from trims.manager.quotas import UNLIMITED, Limits, Quotas
from trims.manager.requests import Requests
from trims.manager.resolve import Resolver
from trims.manager.server import Server
from trims.manager.tenancy import Tenancy
from trims.manager.uses import Uses
from trims.manager.variants import Variants
from trims.manager.whereabouts import Whereabouts
from trims.manager.workers import Mailbox, Pool
from trims.paths import RuntimePaths
from trims.places import HOST, is_gpu
from trims.residency import events as ev
from trims.residency.events import Key
from trims.residency.machine import Machine
from trims.shmindex.writer import IndexWriter
from trims.transfer.base import Filler
from trims.version import __version__
from trims.wire.framing import encode
from trims.wire.messages import VERSION, Message, Welcome

SAVING = 60.0
"""Seconds between two journals when only counters have changed."""
FAREWELL = 1.0
"""Seconds for the last answers to be taken."""
ENDING = 15.0
"""Seconds for the threads to come to their end. A call of a GPU's driver may never return; nothing is lost by leaving
it, as the process's end gives up whatever it has."""


class Manager:
    """One life. `serve` is all of it; `found` says what earlier lives left."""

    def __init__(
        self,
        paths: RuntimePaths,
        store: Store,
        machine: Machine,
        devices: dict[str, Device],
        fillers: dict[str, Filler],
        listener: socket,
        log: Callable[[str, str], None],
        *,
        settings: dict[str, str],
        cap: int,
        own_socket: bool = True,
        spare: int = 0,
        idle_exit: float = float("inf"),
        doors: Doors | None = None,
        limits: Limits = UNLIMITED,
        gpus: Gpus | None = None,
        gpu_group: int | None = None,
        demote: bool = False,
    ) -> None:
        self._paths, self._store, self._log, self._started_with = paths, store, log, settings
        self.identity, self.since = secrets.token_hex(16), time.time()
        self.machine, self._idle_exit, self._own_socket = machine, idle_exit, own_socket
        self._demote = demote
        self._mailbox = Mailbox()
        self._lookups, self._builds = Pool(self._mailbox, "look", 4), Pool(self._mailbox, "build", 1)
        variants = self._variants = Variants(store.root)
        resolver = self._resolver = Resolver(store, variants)
        self.executor = Executor(machine, devices, fillers, resolver.form_of, log, self._mailbox)
        self.executor.load_failed = resolver.forget
        self._uses = Uses(machine, store.id)
        self.executor.leaving = self._leaving
        self._went = ""
        doors = self._doors = doors or Doors()
        self.server = self.executor.server = Server(listener, self, log, doors, cap)
        if doors.system and not fdpass.refuses():
            log("this kernel cannot refuse descriptors: a user can stall the manager by sending some", "warning")
        self.executor.discretion, self.executor.quotas = Discretion(resolver.names, store.root), Quotas(limits, machine)
        asking = self._asking = Asking(store, paths.index, resolver.names, self.executor, self.server, self._mailbox)
        self._importing = Importing(store, variants, resolver.names.forget, self.executor, self.server, self._mailbox)
        asking.rules.update(self._importing.rules)
        gpus = gpus or Gpus()
        whereabouts = Whereabouts(self.executor, gpus.left_out)
        tenancy = Tenancy(resolver.names, self.executor.quotas, machine, gpu_group)
        pools = (self._lookups, self._builds)
        self.requests = Requests(self, self.executor, self.server, resolver, *pools, asking, whereabouts, tenancy)
        self.server.watch(self._mailbox.fd, lambda _: self._mailbox.deliver(self.executor.guarded))
        self._tenure = runtime.Tenure(paths)
        self.found = self._begin(spare)
        self._gpu_watch = GpuWatch(gpus, self.executor, self.server, self._mailbox)

    # ---- life

    def serve(self) -> None:
        """Serve until asked to end; then end."""
        try:
            self.server.serve()
        finally:
            self._end()

    def stop(self) -> None:
        """End after this turn, as `trims stop --now` does."""
        self.executor.ending = True

    def message(self, connection: Connection, message: Message) -> None:
        self.requests.message(connection, message)

    def closed(self, connection: Connection) -> None:
        self.requests.closed(connection)
        self._look_whether_ours()

    def rest(self, now: float) -> float | None:
        """After each turn: what is due, the index, the journal."""
        due = self.machine.next_deadline()
        if due is not None and due <= now:
            self.executor.guarded(lambda: self.executor.feed(ev.Tick()))
            due = self.machine.next_deadline()
        sums_due = self.executor.publisher.flush(self._all_counters, self._shown, now)
        if self.executor.journal_due and not self._keeper.busy:
            self.executor.journal_due = False
            self._keeper.save()
        if self.executor.ending:
            self.server.stop()
        return sums_due if due is None or (sums_due is not None and sums_due < due) else due

    def status(self, operator: bool = True) -> dict[str, object]:
        """The item of a Status; for a tenant without what earlier lives left, which names models."""
        budgets: dict[str, object] = {}
        for place in self.executor.places:
            use = self.machine.use(place)
            budgets[place] = {name: getattr(use, name) for name in use.__slots__}
        return {
            "version": __version__,
            "pid": os.getpid(),
            "identity": self.identity,
            "store": self._store.root,
            "socket": self._paths.socket,
            "since": self.since,
            "policy": self.machine.policy,
            "min_resident": units.parse_duration(self._started_with["residency.min_resident"]),
            "settings": self.settings(),
            "budgets": budgets,
            "counters": self._all_counters(),
            "connections": len(self.server.connections),
            "queue": self.machine.queue(),
            "found": self.found if operator else {},
            "scope": self._doors.scope,
            "gpus": self._gpu_watch.describe(),
            "left_out": {place: str(error) for place, error in self._gpu_watch.left_out.items()},
            "spare": {place: device.statistics().spare_nbytes for place, device in self.executor.devices.items()},
        }

    def welcome(self, operator: bool) -> bytes:
        """The answer to a hello."""
        who = (VERSION, __version__, os.getpid(), self.identity, self._store.root, self._store.id)
        return encode(Welcome(*who, self._doors.scope, operator))

    def settings(self) -> dict[str, str]:
        """What it runs with now, by key of the configuration, as it was written."""
        return {**self._started_with, "residency.policy": self.machine.policy}

    def _shown(self) -> dict[str, str]:
        """What the index says of it."""
        least = self._started_with["residency.min_resident"]
        return {"policy": self.machine.policy, "min_resident": least, "last_eviction": self._went}

    def _leaving(self, key: Key) -> None:
        """A residency is going: note its last use, and why it goes; keep it on the host where that is wanted."""
        self._uses.note(key)
        lines = self.machine.history(key.digest)
        self._went = telling.went(lines, key) or self._went
        if self._demote and is_gpu(key.place) and telling.made_way(lines, key):
            ref = lines[-1].ref
            self.executor.post(lambda: self.requests.keep_on_host(key, ref))

    # ---- beginning

    def _begin(self, spare: int) -> dict[str, object]:
        """What earlier lives left is read and taken up; from then on the index speaks of this one."""
        paths, places = self._paths, self.executor.places
        earlier = self._earlier = Inheritance(paths, self.executor, self._resolver, self._lookups, self._log)
        self._keeper = Keeper(paths.journal, self._tenure, self.machine, earlier, self._uses, self._log, self._mailbox)
        index = self._new_index(places)
        self.executor.publisher = Publisher(self.machine, index, places, self.executor.progress)
        found = self._earlier.take_over(self.server)
        self.executor.keep_spare(HOST, spare)
        if self._idle_exit != float("inf"):
            self.server.at(time.monotonic() + self._idle_exit, self._look_whether_idle)
        self._save_now_and_then()
        self.rest(time.monotonic())
        return found

    def _new_index(self, places: list[str]) -> IndexWriter:
        pid = os.getpid()
        return IndexWriter(
            self._paths.index,
            places,
            identity=self.identity,
            pid=pid,
            started=process.start_time(pid),
            uid=os.geteuid(),
            since=self.since,
            store=self._store.root,
            socket=self._paths.socket,
            version=__version__,
        )

    # ---- while it lives

    def _all_counters(self) -> dict[str, int]:
        counters = self.machine.counters
        sums = {name: value + self._earlier.counters.get(name, 0) for name, value in counters.items()}
        return {**sums, "connections": len(self.server.connections), "queue": self.machine.queue()}

    def _look_whether_ours(self) -> None:
        if not self._tenure.lasts() and not self.executor.ending:
            self._log("the manager ends: its runtime directory is gone, so that nobody can reach it", "warning")
            self.stop()

    def _save_now_and_then(self) -> None:
        self._look_whether_ours()
        self.executor.journal_due = self.executor.journal_due or self.requests.last_activity > time.monotonic() - SAVING
        self.server.at(time.monotonic() + SAVING, self._save_now_and_then)

    def _look_whether_idle(self) -> None:
        busy = any(True for _ in self.machine.leases()) or any(True for _ in self.machine.pins())
        now = time.monotonic()
        end = self.requests.last_activity + self._idle_exit
        if not busy and not self.machine.queue() and end <= now:
            self._log("the manager ends: nobody has used it for a while", "info")
            self.stop()
            return
        self.server.at(max(end, now + self._idle_exit / 4) if busy else max(end, now), self._look_whether_idle)

    # ---- the end

    def _end(self) -> None:
        late = threading.Timer(ENDING, self._leave)
        late.daemon = True
        late.start()
        try:
            self._end_all()
        finally:
            late.cancel()

    def _leave(self) -> None:
        """In a thread, when the end takes too long."""
        self._log("the manager has ended; a call of a GPU's driver, or of a disk, has not", "warning")
        os._exit(0)

    def _end_all(self) -> None:
        asked = self.executor.ending
        self.server.stop_listening()
        ours = self._tenure.lasts()
        if ours and self._own_socket:
            _remove(self._paths.socket)  # from now on there is no manager, for whoever comes
        self.requests.close()
        self._gpu_watch.close()
        self._importing.close()
        self._variants.close()
        taken = self._keeper.take(pins_only=asked)
        held = any(True for _ in self.machine.leases())
        self.executor.publisher.close()
        if ours and not held:
            _remove(self._paths.index)
        self._keeper.finish(taken)
        self.server.finish(FAREWELL)
        for pool in (self._builds, self._lookups, self._asking, self._gpu_watch.pool):
            pool.close()
        self._earlier.close()
        self.executor.close()
        self._mailbox.close()


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
