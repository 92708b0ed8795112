"""What the manager did and when: a bounded ring of records, which anybody who asks reads page by page.

Every record has a number, counted from the manager's start; the ring holds the last RING of them. A reader keeps the
number it has come to and asks for what follows; what was overwritten meanwhile is counted, and it is told. Nothing is
kept for a reader, so a dead one costs nothing, and a slow one loses records, not the manager's time.

Noting is on the way of every attach, so it only keeps references: a tuple is appended, and made readable when a page
is asked for. Times are of CLOCK_MONOTONIC, which all processes of a machine share. In the loop only.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import structs

from trims.wire import messages as wm

if TYPE_CHECKING:
    from trims.manager.connection import Connection
    from trims.manager.loader import LoadJob
    from trims.residency.effects import Grant
    from trims.residency.events import Key, Who
    from trims.residency.views import HistoryView

RING = 20_000
PAGE = 250
"""Most records in one answer: some 70 KiB, half a millisecond of the loop."""
KINDS: frozenset[type] = frozenset({wm.Attach, wm.Warm, wm.Pin, wm.Unpin, wm.Evict, wm.Forget, wm.WaitFor, wm.Stop})
"""Requests that are recorded: those that the machine answers."""

_LONG = 512
"""Characters of a text in a request beyond which it names nothing that there can be."""
_GIVEN_UP = ("evicted", "expired", "doomed")

Item = dict[str, object]
Asked = tuple[float, Any, float]
"""A request that has no answer yet: its arrival, the message, and when its look-up ended (0: it needed none)."""


def brief(message: wm.Request) -> wm.Request:
    """The message as it is kept: a ring of what clients send must not hold megabytes of each."""
    texts = [(name, value) for name in message.__struct_fields__ if type(value := getattr(message, name)) is str]
    long = {name: value[:_LONG] for name, value in texts if len(value) > _LONG}
    return structs.replace(message, **long) if long else message


class Recording:
    """The ring. `count`: records noted in this life, so the number of the next one."""

    def __init__(self, ring: int = RING) -> None:
        self._ring: deque[tuple[Any, ...]] = deque(maxlen=ring)
        self.count = 0

    # ---- noting

    def asked(self, connection: Connection, message: wm.Request, now: float) -> None:
        """A request has come, to be noted when it is answered."""
        if type(message) is wm.Attach:  # the one on the hot path
            long = len(message.ref) + len(message.variant) + len(message.prefer) + len(message.place) > _LONG
            connection.asked[message.id] = (now, brief(message) if long else message, 0.0)
        elif type(message) in KINDS:
            connection.asked[message.id] = (now, brief(message), 0.0)

    def granted(self, connection: Connection, effect: Grant, job: LoadJob) -> None:
        """An attach is answered with a lease. job: the load that brought the model here."""
        asked = connection.asked.pop(effect.request, None)
        if asked is not None:
            self._ring.append((_granted, asked, time.monotonic(), connection.who, effect, job))
            self.count += 1

    def answered(self, connection: Connection, request: int, items: Iterable[Item] = ()) -> None:
        """Another request is done."""
        self._answer(connection, request, next(iter(items), None), "")

    def refused(self, connection: Connection, request: int, code: str) -> None:
        """A request failed."""
        self._answer(connection, request, None, code)

    def looked_up(self, connection: Connection, request: int) -> None:
        """What a request named has been found out, or that it cannot be."""
        asked = connection.asked.get(request)
        if asked is not None:
            connection.asked[request] = (asked[0], asked[1], time.monotonic())

    def released(self, lease: int) -> None:
        """A lease has ended, by word or with its connection."""
        self._ring.append((_released, lease, time.monotonic()))
        self.count += 1

    def left(self, connection: Connection) -> None:
        """A connection has ended: so have its leases, and its requests that have no answer."""
        for lease in connection.leases:
            self.released(lease)
        for request in list(connection.asked):
            self._answer(connection, request, None, "gone")

    def loaded(self, job: LoadJob, code: str = "") -> None:
        """A load has ended. code: of the error it ended with."""
        self._note(_load, job, time.monotonic(), code)

    def freed(self, job: LoadJob, began: float) -> None:
        """A region's memory is back; giving it back began at `began`."""
        self._note(_free, job, began, time.monotonic())

    def evicted(self, key: Key, story: Sequence[HistoryView]) -> None:
        """A residency goes. story: what happened to its model, oldest first; when and why it was given up is in it."""
        for line in reversed(story):
            if line.what in _GIVEN_UP and (line.variant, line.place) == (key.variant, key.place):
                self._note(_evict, line)
                return

    def used(self, place: str, nbytes: int) -> None:
        """From now on so many bytes of a place are in use."""
        self._note(_use, place, nbytes, time.monotonic())

    def _answer(self, connection: Connection, request: int, item: Item | None, code: str) -> None:
        asked = connection.asked.pop(request, None)
        if asked is not None:
            self._note(_answered, asked, time.monotonic(), connection.number, connection.who, item, code)

    def _note(self, *record: Any) -> None:
        self._ring.append(record)
        self.count += 1

    # ---- reading

    def page(self, after: int, limit: int = PAGE) -> list[Item]:
        """The records numbered `after` and up, `limit` at most, behind an item that says where they are.

        after: 0 begins with the oldest there is; below 0 is the end: no record, only where the next will be.
        The first item: next (the number to ask for then), lost (records from `after` on that are gone), now, more.
        """
        oldest = self.count - len(self._ring)
        first = self.count if after < 0 else min(max(after, oldest), self.count)
        limit = max(1, min(limit, PAGE))
        records = [record[0](*record[1:]) for record in islice(self._ring, first - oldest, first - oldest + limit)]
        end = first + len(records)
        lost = max(0, first - after) if after >= 0 else 0
        return [{"next": end, "lost": lost, "now": time.monotonic(), "more": end < self.count}, *records]


# ---- a record as an item


def _granted(asked: Asked, at: float, who: Who, effect: Grant, job: LoadJob) -> Item:
    model = _model(job.key, job.ref, job.nbytes)
    return {**_request(asked, at, effect.conn, who), **model, "how": effect.how, "code": "", "lease": effect.lease}


def _answered(asked: Asked, at: float, conn: int, who: Who | None, item: Item | None, code: str) -> Item:
    message, item = asked[1], item or {}
    model = {
        "ref": item.get("ref") or getattr(message, "ref", ""),
        "digest": item.get("digest") or getattr(message, "digest", ""),
        "variant": item.get("variant") or getattr(message, "variant", ""),
        "place": getattr(message, "place", ""),
        "nbytes": item.get("nbytes", 0),
    }
    how = "failed" if code else str(item.get("outcome", "done"))
    return {**_request(asked, at, conn, who), **model, "how": how, "code": code, "lease": 0}


def _request(asked: Asked, at: float, conn: int, who: Who | None) -> Item:
    arrived, message, looked_up = asked
    return {
        "kind": "request",
        "verb": message.__struct_config__.tag,
        "conn": conn,
        "id": message.id,
        "pid": who.pid if who is not None else 0,
        "job": who.job if who is not None else "",
        "arrived": arrived,
        "looked_up": looked_up or None,
        "answered": at,
    }


def _released(lease: int, at: float) -> Item:
    return {"kind": "release", "lease": lease, "at": at}


def _load(job: LoadJob, at: float, code: str) -> Item:
    times = {"queued": job.queued, "began": job.began, "read": job.read, "sealed": job.sealed}
    model = _model(job.key, job.ref, job.nbytes)
    return {"kind": "load", "load": job.number, **model, **{k: v or None for k, v in times.items()}, "ended": at,
            "code": code}  # fmt: skip


def _free(job: LoadJob, began: float, at: float) -> Item:
    return {"kind": "free", **_model(job.key, job.ref, job.nbytes), "began": began, "ended": at}


def _evict(line: HistoryView) -> Item:
    names = ("ref", "digest", "variant", "place", "nbytes", "what", "why", "by", "policy", "rank", "of")
    return {"kind": "evict", **{name: getattr(line, name) for name in names}, "at": line.time}


def _use(place: str, nbytes: int, at: float) -> Item:
    return {"kind": "use", "place": place, "used": nbytes, "at": at}


def _model(key: Key, ref: str, nbytes: int) -> Item:
    return {"ref": ref, "digest": key.digest, "variant": key.variant, "place": key.place, "nbytes": nbytes}
