"""The machine's effects, performed. What takes time goes to threads and comes back as an event.

Regions belong to this object from the moment they are sealed until their Free has been done. The answer to an attach
is encoded once a region; each attach only puts its own two numbers in front.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import Any

from trims.devices.base import Device, Region
from trims.disk.reader import Cancelled
from trims.errors import TrimsError
from trims.manager.answering import answer_tail, refused
from trims.manager.connection import Connection
from trims.manager.discretion import Discretion
from trims.manager.loader import Filled, Form, LoadJob, load, lost
from trims.manager.names import unknown
from trims.manager.publisher import Publisher
from trims.manager.quotas import Quotas
from trims.manager.recording import Recording
from trims.manager.server import Server
from trims.manager.workers import Mailbox, Pool
from trims.places import is_gpu
from trims.residency import effects as fx
from trims.residency import events as ev
from trims.residency.events import Key
from trims.residency.machine import Machine
from trims.transfer.base import Filler
from trims.wire.framing import encode
from trims.wire.header import pack
from trims.wire.messages import Progress, Result

LOADERS = 4
"""Loads at once to the host. To a GPU it is one: its worker has one bus to fill."""
PROGRESS = 0.1
"""Seconds between two reports of one load."""
_SPARE = "spare"


class Executor:
    """Performs effects; `feed` gives the machine an event and performs what it answers."""

    def __init__(
        self,
        machine: Machine,
        devices: dict[str, Device],
        fillers: dict[str, Filler],
        forms: Callable[[Key, str], Form],
        log: Callable[[str, str], None],
        mailbox: Mailbox,
    ) -> None:
        self.machine, self.devices, self.form_of, self._log = machine, devices, forms, log
        self._fillers = fillers
        self._mailbox = mailbox
        self.recording = Recording()
        self._loaders = {place: Pool(mailbox, "load", 1 if is_gpu(place) else LOADERS) for place in devices}
        self._freers = {place: Pool(mailbox, "free", 1) for place in devices}
        self._regions: dict[Key, tuple[Filled, bytes, LoadJob]] = {}
        self._loads: dict[Key, LoadJob] = {}
        self._spare: dict[str, tuple[int, int]] = {}  # place: (wanted, kept)
        self.server: Server
        self.discretion: Discretion
        self.quotas: Quotas
        self.publisher: Publisher
        self.journal_due = self.ending = False
        self.load_failed: Callable[[Key], None] = lambda key: None
        self.leaving: Callable[[Key], None] = lambda key: None
        self._rules: dict[type, Callable[[Any], None]] = {
            fx.Load: self._load,
            fx.Cancel: self._cancel,
            fx.Free: self._free,
            fx.Grant: self._grant,
            fx.Reply: self._reply,
            fx.Refuse: self._refuse,
            fx.ShrinkSpare: self._shrink_spare,
            fx.Publish: self._publish,
            fx.Journal: self._journal,
            fx.Log: self._line,
            fx.Exit: self._exit,
        }

    @property
    def places(self) -> list[str]:
        return list(self.devices)

    def feed(self, event: ev.Event) -> None:
        """Let the machine decide about `event`, and do it. One effect that fails does not stop the others."""
        rules = self._rules
        for effect in self.machine.handle(event, time.monotonic()):
            try:
                rules[type(effect)](effect)
            except Exception as error:
                self.blunder(error)
        self.publisher.touch()

    def guarded(self, call: Callable[[], None]) -> None:
        """Make a call whose failure would be our own fault: it is logged, and the manager serves on."""
        try:
            call()
        except Exception as error:
            self.blunder(error)

    def blunder(self, error: Exception) -> None:
        """Log a failure that should have been impossible, with where it came from."""
        for line in traceback.format_exception(error):
            self._log(line.rstrip(), "warning")

    def write(self, text: str, level: str = "info") -> None:
        """One line for the log. In the loop only."""
        self._log(text, level)

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop make this call. From any thread."""
        self._mailbox.post(call)

    def progress(self, key: Key) -> int:
        """Bytes in place of a load on its way."""
        job = self._loads.get(key)
        return job.done if job is not None else 0

    def keep_spare(self, place: str, nbytes: int) -> None:
        """Keep so many bytes of ready pages from now on, while nothing else needs them."""
        self._spare[place] = (nbytes, 0)
        self._set_spare(place, nbytes)

    def close(self) -> None:
        """Cancel every load, wait for the threads, give all memory up."""
        for job in self._loads.values():
            job.cancel()
        for filler in self._fillers.values():
            filler.close()  # it may be all that a thread still waits for
        for pool in (*self._loaders.values(), *self._freers.values()):
            pool.close()
        for device in self.devices.values():
            device.close()

    # ---- loads

    def _load(self, effect: fx.Load) -> None:
        job = self._loads[effect.key] = LoadJob(effect.load, effect.key, effect.ref, effect.nbytes)
        place = effect.key.place
        device, filler = self.devices[place], self._fillers[place]
        other = self._regions[effect.key._replace(place=effect.source)][0].region if effect.source else None
        self._loaders[place].run(
            lambda: load(device, filler, job, self.form_of, other, lambda done: self._on_bytes(job, done)),
            lambda outcome: self._loaded(job, outcome),
        )
        self._note_use(place)

    def _on_bytes(self, job: LoadJob, done: int) -> None:
        """In a loading thread: tell the loop how far it is, now and then."""
        job.done = done
        now = time.monotonic()
        if now >= job.told + PROGRESS:
            job.told = now
            self._mailbox.post(lambda: self._tell_progress(job))

    def _tell_progress(self, job: LoadJob) -> None:
        key = job.key
        if self._loads.get(key) is not job:
            return
        self.publisher.changed(key)
        for number, request in self.machine.waiters(key):
            connection = self.server.connections.get(number)
            if connection is not None:
                self.server.send(connection, encode(Progress(request, job.done, job.nbytes)))

    def _loaded(self, job: LoadJob, outcome: Filled | BaseException) -> None:
        key = job.key
        del self._loads[key]
        if isinstance(outcome, Filled) and outcome.region.lost:
            outcome = lost(outcome, job)
        if isinstance(outcome, Filled):
            job.nbytes = outcome.region.nbytes
            self._regions[key] = (outcome, answer_tail(key, outcome), job)
            self.recording.loaded(job)
            self.feed(ev.Loaded(key, job.number, outcome.region.nbytes))
            self._note_use(key.place)
            return
        if not isinstance(outcome, TrimsError):
            self._log(f"loading {job.ref} failed: {outcome!r}", "warning")
            outcome = TrimsError(f"loading {job.ref} failed", str(outcome), "see `trims logs`")
        self.recording.loaded(job, outcome.code)
        self.feed(ev.LoadFailed(key, job.number, outcome.to_dict()))
        self._note_use(key.place)
        if not isinstance(outcome, Cancelled):  # somebody may want it again, and be loading it by now
            self.load_failed(key)

    def _cancel(self, effect: fx.Cancel) -> None:
        job = self._loads.get(effect.key)
        if job is not None and job.number == effect.load:
            job.cancel()

    def _free(self, effect: fx.Free) -> None:
        """Closing gives a gigabyte back page by page: a thread does it."""
        self.leaving(effect.key)
        filled, _, job = self._regions.pop(effect.key)
        self.recording.evicted(effect.key, self.machine.history(effect.key.digest))
        began, device = time.monotonic(), self.devices[effect.key.place]

        def done(outcome: int | BaseException | None) -> None:
            self._freed(job, began, outcome if isinstance(outcome, int) else None)

        self._freers[effect.key.place].run(lambda: self._close(device, filled.region), done)

    def look_for_lost(self, place: str) -> int:
        """Give up what is gone from a place because the process that owned its memory has ended; how many that is."""
        gone = [key for key, (filled, *_) in self._regions.items() if key.place == place and filled.region.lost]
        for key in gone:
            self.feed(ev.Lost(key))
        return len(gone)

    def _close(self, device: Device, region: Region) -> int | None:
        """In a thread: give a region up, and what was kept of it to fill others from. Bytes by which the use fell."""
        for filler in self._fillers.values():
            filler.forget(region)
        before = device.used()
        region.close()
        after = device.used()
        return before - after if before is not None and after is not None else None

    def _freed(self, job: LoadJob, began: float, measured: int | None) -> None:
        key = job.key
        self.recording.freed(job, began)
        self.feed(ev.Freed(key, measured))
        self._note_use(key.place)
        wanted, kept = self._spare.get(key.place, (0, 0))
        use = self.machine.use(key.place)
        if kept < wanted <= use.budget - use.used and not self.machine.queue():
            self._set_spare(key.place, wanted)

    # ---- spare pages

    def _shrink_spare(self, effect: fx.ShrinkSpare) -> None:
        self._set_spare(effect.place, max(0, self._spare.get(effect.place, (0, 0))[1] - effect.nbytes))

    def _set_spare(self, place: str, nbytes: int) -> None:
        """More counts before it is there, less counts when it has gone."""
        wanted, kept = self._spare.get(place, (0, 0))
        self._spare[place] = (wanted, nbytes)
        device = self.devices[place]
        if nbytes > kept:
            self._reserve_spare(place, nbytes)
        self._freers[place].run(lambda: device.set_spare(nbytes), lambda _: self._reserve_spare(place, nbytes))

    def _reserve_spare(self, place: str, nbytes: int) -> None:
        if self._spare[place][1] == nbytes:
            self.feed(ev.Reserved(place, _SPARE, nbytes, spare=True))
            self._note_use(place)

    def _note_use(self, place: str) -> None:
        self.recording.used(place, self.machine.use(place).used)

    # ---- answers

    def _grant(self, effect: fx.Grant) -> None:
        connection = self.server.connections[effect.conn]
        filled, tail, job = self._regions[effect.key]
        if effect.how != "hit" and connection.tenant is not None and not self._still_readable(connection, effect):
            return
        connection.leases[effect.lease] = effect.key
        if connection.tenant is not None:
            self.quotas.granted(connection.uid, effect.key, filled.region.nbytes)
        if connection.who is not None:
            self.publisher.leased(effect.lease, effect.key, connection.who)
        head = b'{"t":"attached","id":%d,"lease":%d,' % (effect.request, effect.lease)
        if effect.how != "hit":  # the default of the protocol, and nearly all
            head += b'"how":"%s",' % effect.how.encode()
        self.recording.granted(connection, effect, job)
        self.server.send(connection, pack(head + tail), filled.region.descriptors)

    def _still_readable(self, connection: Connection, effect: fx.Grant) -> bool:
        """Whether a tenant who has waited may have it now; else they are refused, and the lease is taken back."""
        tenant, key = connection.tenant, effect.key
        if tenant is None or self.discretion.readable(tenant, key.digest):
            return True
        self.refuse(connection, effect.request, unknown(f"id:{key.digest}").to_dict())
        self._mailbox.post(lambda: self.feed(ev.Released(effect.conn, effect.lease)))  # when this event is done with
        return False

    def _reply(self, effect: fx.Reply) -> None:
        self.publisher.urge()
        connection = self.server.connections.get(effect.conn)
        if connection is None:
            return
        step = connection.steps.pop(effect.request, None)
        if step is not None and step(list(effect.items), None):
            return
        items = list(effect.items)
        if connection.tenant is not None:
            items = self.discretion.items(connection.tenant, items)
        self.recording.answered(connection, effect.request, effect.items)
        self.server.send(connection, encode(Result(effect.request, items)))

    def _refuse(self, effect: fx.Refuse) -> None:
        self.publisher.urge()
        connection = self.server.connections.get(effect.conn)
        if connection is not None:
            step = connection.steps.pop(effect.request, None)
            if step is not None and step(None, effect.error):
                return
            self.refuse(connection, effect.request, effect.error)
        elif not effect.conn:  # our own wish, of an earlier life or in somebody's absence
            self._log(str(effect.error.get("message", "")), "warning")

    def refuse(self, connection: Connection, request: int, error: dict[str, Any]) -> None:
        """Answer a request with an error's dictionary, as far as its asker may know of it."""
        if connection.tenant is not None:
            error = self.discretion.error(connection.tenant, error)
        self.recording.refused(connection, request, str(error.get("code", "")))
        self.server.send(connection, refused(request, error))

    # ---- the rest

    def _publish(self, effect: fx.Publish) -> None:
        self.publisher.changed(effect.key)

    def _journal(self, _: fx.Journal) -> None:
        self.journal_due = True

    def _line(self, effect: fx.Log) -> None:
        self._log(effect.text, effect.level)

    def _exit(self, _: fx.Exit) -> None:
        self.ending = True
