"""Runs of a workload with real processes: `run` serves a stream, `alone` times models one at a time.

The coordinator starts the clients, waits until all are ready, stamps the beginning and releases requests by writing
their numbers into one pipe: all of them at once for a closed loop (as far as the pipe has room), each at its time for
open arrivals, or one after another with something to be done before each. Clients that are free take them in that
order. It sleeps in select between what it hears; a request under way too long, or a client that has died, is ended,
its request has failed, and another client takes its place. However a run ends, no process of it is left.
"""

from __future__ import annotations

import fcntl
import math
import os
import struct
import termios
import time
from collections.abc import Callable, Sequence
from selectors import EVENT_WRITE
from typing import Any

import numpy as np

from trims import units
from trims.errors import Damaged, NoRoom, TrimsError, UsageError
from trims.linux import process
from trims.workload import board as boards
from trims.workload import coldness
from trims.workload.board import Board
from trims.workload.clients import ClientProcess, Clients, spec
from trims.workload.functions import READS
from trims.workload.models import ModelSpec
from trims.workload.plan import Stream
from trims.workload.setting import WARM, Baseline, Coldness, Run, Setting
from trims.workload.world import World

__all__ = ["Baseline", "Coldness", "Run", "Setting", "Watch", "World", "alone", "run"]

Watch = Callable[[int, int], None]
"""Called with (requests that have ended, requests in all)."""

_GRACE = 5.0  # seconds beyond a request's own timeout after which its client is ended too
_DEATHS = 3  # clients that may die for each one started before the run is given up
_LOOK = 1.0  # seconds between two looks for what takes too long
_COPIES = {"onnxruntime": 2}  # of the weights: as they are in the file, and as its optimiser lays them out
_PAGES = 4096  # bytes: writes to a pipe up to this size are whole


def run(
    stream: Stream,
    setting: Setting,
    world: World,
    watch: Watch | None = None,
    before: Callable[[int], None] | None = None,
) -> Run:
    """Serve every request of the stream, by `stream.clients` clients.

    The models must have been imported, and for the trims side the manager runs. before: called with each request's
    number while no other is under way: requests are then served one at a time.
    Raises NoRoom when the machine's memory cannot hold what may be in use at once, Damaged when the two sides, or two
    requests, give different results, TrimsError when clients do not start or keep dying.
    """
    models = _models(stream, setting, world)
    notes = guard(stream, setting, world)
    files = [model["files"] for model in models]
    looks: list[float] = []
    if setting.cache == "warm":
        coldness.heat(files)
        looks = coldness.look(files)
    counted = world.counters() if setting.side == "trims" else {}
    with _Drive(stream, setting, models, world, watch, before) as drive:
        began = drive.serve()
        outcomes = drive.board.outcomes(len(stream), began)
        rows = drive.board.rows[: len(stream)].copy()
        starts, reasons = drive.starts, drive.reasons()
    counters = {}
    if counted and world.running:
        counters = {name: value - counted.get(name, 0) for name, value in world.counters().items()}
    if setting.cache == "warm":
        looks += coldness.look(files)
    else:
        looks = [float(value) for value in rows["cached"] if not math.isnan(value)]
    found = coldness.found(setting.cache, looks)
    _compare(rows, stream, setting, world)
    seconds = float(outcomes["done"].max() - outcomes["asked"].min()) if len(outcomes) else 0.0
    return Run(
        outcomes, setting, began, seconds, counters, found, tuple(looks), reasons, (*notes, *_doubts(found)), starts
    )


def alone(
    models: Sequence[ModelSpec],
    setting: Setting,
    world: World,
    repeats: int = 5,
    watch: Watch | None = None,
    how: str = "hit",
) -> dict[str, Baseline]:
    """Each model by itself, one request at a time, `repeats` requests: model name -> medians.

    how: on the trims side, "hit" has the model resident before, "load" evicted before each request; a load is cold or
    warm as `setting.cache` says, and so is a native request. Raises as `run`, and TrimsError when a request fails.
    """
    if how not in ("hit", "load"):
        raise UsageError(f"unknown kind of baseline {how!r}", "", "known: hit, load")
    asked = np.repeat(np.arange(len(models), dtype=np.int32), repeats)
    stream = Stream(tuple(models), asked)
    trims = setting.side == "trims"

    def before(request: int) -> None:
        model = models[asked[request]]
        first = request % repeats == 0
        if setting.cache == "warm" and first:  # again, as the models before it may have taken its room
            coldness.heat([_files(model, setting, world)])
        if trims and how == "load":
            world.evict([model])
        elif trims and first:
            world.evict([models[asked[request - 1]]] if request else [])  # the one before it made no room
            world.warm([model])

    done = run(stream, setting, world, watch, before)
    if done.reasons:
        request, why = next(iter(done.reasons.items()))
        raise TrimsError(f"model {models[asked[request]].name!r} alone failed", why)
    wanted = {"native": 3, "hit": 0, "load": 2}["native" if not trims else how]
    if not (done.outcomes["how"] == wanted).all():
        raise TrimsError(f"a baseline of kind {how} was not served so", "another program uses this world's manager")
    latency = (done.outcomes["done"] - done.outcomes["asked"]).reshape(-1, repeats)
    ready = (done.outcomes["ready"] - done.outcomes["asked"]).reshape(-1, repeats)
    return {
        model.name: Baseline(
            float(np.median(latency[at])), float(np.median(ready[at])), repeats, _spread(latency[at]), done.coldness
        )
        for at, model in enumerate(models)
    }


def guard(stream: Stream, setting: Setting, world: World) -> tuple[str, ...]:
    """Raise NoRoom when the clients' private copies and the budget exceed the machine's memory; gives remarks.

    Natively each client holds its model in private memory, at worst all of them the largest one.
    """
    if setting.side == "trims":
        for model in stream.models:
            check_budget(model, world.of(model).nbytes, world.budget)
    copies = (_COPIES.get(function_of(model, setting), 1) * model.nbytes for model in stream.models)
    private = stream.clients * max(copies, default=0) if setting.side == "native" else 0
    need = private + (world.budget if world.running else 0)
    limit = process.memory_limit()
    if need > limit:
        raise NoRoom(
            f"{stream.clients} clients do not fit into memory",
            f"{units.format_size(need)} may be in use at once, the machine has {units.format_size(limit)}",
            "take fewer --clients, a smaller --budget or smaller models",
        )
    free = process.memory_available() + (world.budget if world.running else 0)
    if need > free:
        return (f"{units.format_size(need)} may be in use at once and {units.format_size(free)} is free: it may swap",)
    return ()


def check_budget(model: ModelSpec, nbytes: int, budget: int) -> None:
    """Raise NoRoom when a model whose region takes `nbytes` can never be resident."""
    if nbytes > budget:
        raise NoRoom(
            f"the budget of {units.format_size(budget)} cannot hold {model.name}",
            f"its region takes {nbytes} bytes, the budget is {budget}",
            "give a larger --budget",
        )


def _models(stream: Stream, setting: Setting, world: World) -> list[dict[str, Any]]:
    """What clients are told of each model."""
    return [
        {
            "ref": world.of(model).ref,
            "file": model.file,
            "files": list(_files(model, setting, world)),
            "function": function_of(model, setting),
        }
        for model in stream.models
    ]


def function_of(model: ModelSpec, setting: Setting) -> str:
    """The function that serves this model. Raises UsageError when it cannot read the model's file."""
    name = model.runs if setting.function == "auto" else setting.function
    reads = READS.get(name)
    if reads is not None and not model.file.endswith(reads):
        raise UsageError(
            f"the function {name} cannot run {model.name}",
            f"natively it loads files that end with {', '.join(reads)}",
            "choose another --function; auto runs each model by its own",
        )
    return name


def _files(model: ModelSpec, setting: Setting, world: World) -> tuple[str, ...]:
    """The files that a load of the model reads, on this side."""
    return world.of(model).files if setting.side == "trims" else (model.file,)


def _doubts(found: Coldness | None) -> tuple[str, ...]:
    if found is None or found.proven:
        return ()
    if found.cache == "warm":
        return (f"not all was warm: {found.least:.0%} of a model was in the page cache, {WARM:.0%} is asked for",)
    return (f"not all was cold: up to {found.most:.0%} of a model was still in the page cache",)


def _compare(rows: Any, stream: Stream, setting: Setting, world: World) -> None:
    """One result a model and function, whoever computes it. Raises Damaged."""
    for row in rows[rows["state"] == boards.SERVED]:
        model = stream.models[row["model"]]
        share = "max" if setting.side == "trims" and setting.share == "max" else "exact"
        key = (model.name, function_of(model, setting), share, str(setting.threads))
        known = world.checksums.setdefault(key, int(row["checksum"]))
        if known != int(row["checksum"]):
            raise Damaged(
                f"{model.name} gave two different results",
                f"{known:016x} before, {int(row['checksum']):016x} on the side {setting.side}",
                "see `trims verify`; figures of wrong results are not reported",
            )


def _spread(x: Any) -> float:
    low, high = np.percentile(x, (25, 75))
    return float(high - low) / 2


class _Drive:
    """One run under way. `board` is its table; `starts` the seconds until its clients were ready."""

    def __init__(
        self,
        stream: Stream,
        setting: Setting,
        models: list[dict[str, Any]],
        world: World,
        watch: Watch | None,
        before: Callable[[int], None] | None,
    ) -> None:
        self._stream, self._setting, self._watch, self._before = stream, setting, watch, before
        self.board = Board.make(stream.model)
        self._tickets, self._release = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._release, False)
        told = spec(setting, models, self.board.fd, self._tickets)
        self._clients = Clients(stream.clients, told, world.env)
        self._released = self._ended = self._deaths = 0
        self._told = -1
        self._suspects: set[int] = set()
        self._began = self.starts = 0.0

    def __enter__(self) -> _Drive:
        started = time.monotonic()
        try:
            self._clients.__enter__()
        except BaseException:
            self._close()
            raise
        self.starts = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._clients.__exit__()
        self._close()

    def _close(self) -> None:
        self.board.close()
        os.close(self._tickets)
        os.close(self._release)

    def reasons(self) -> dict[int, str]:
        """Why requests failed, by number."""
        (failed,) = np.nonzero(self.board.rows["state"][: len(self._stream)] == boards.FAILED)
        return {int(request): self.board.reason(int(request)) for request in failed}

    def serve(self) -> float:
        """Have all requests served; the moment at which the run began, on CLOCK_MONOTONIC."""
        self._began = time.monotonic()
        if self._stream.at is not None:
            self.board.rows["asked"][: len(self._stream)] = self._began + self._stream.at
        looked = self._began
        while self._ended < len(self._stream):
            self._release_due()
            for key, _ in self._clients.selector.select(self._patience()):
                if isinstance(key.data, ClientProcess):
                    self._hear(key.data)
            now = time.monotonic()
            if now - looked >= _LOOK:
                looked = now
                self._end_slow(now)
            self._count()
        return self._began

    # ---- requests out

    def _due(self) -> int:
        """How many requests may have been released by now."""
        if self._before is not None:
            return min(len(self._stream), self._ended + 1)
        if self._stream.at is None:
            return len(self._stream)
        return int(np.searchsorted(self._stream.at, time.monotonic() - self._began, side="right"))

    def _release_due(self) -> None:
        due = self._due()
        full = False
        while self._released < due and not full:
            count = min(due - self._released, _PAGES // 4)
            if self._before is not None:
                self._before(self._released)
            numbers = range(self._released, self._released + count)
            try:
                os.write(self._release, struct.pack(f"={count}i", *numbers))
                self._released += count
            except BlockingIOError:
                full = True
        self._want_room(full)

    def _want_room(self, wanted: bool) -> None:
        selector, registered = self._clients.selector, self._release in self._clients.selector.get_map()
        if wanted and not registered:
            selector.register(self._release, EVENT_WRITE, None)
        elif registered and not wanted:
            selector.unregister(self._release)

    def _patience(self) -> float:
        """Seconds to wait for something to happen."""
        if self._before is None and self._stream.at is not None and self._released < len(self._stream):
            due = self._began + float(self._stream.at[self._released])
            return max(0.0, min(_LOOK, due - time.monotonic()))
        return _LOOK

    # ---- what comes back

    def _hear(self, client: ClientProcess) -> None:
        if client.heard():
            client.ready = True
        else:
            why = self._clients.bury(client)
            self._fail_taken(client.number, why)
            self._deaths += 1
            if self._deaths > _DEATHS * self._stream.clients:
                raise TrimsError("the clients of the workload keep dying", why)
            self._clients.start(client.number)

    def _count(self) -> None:
        self._ended = int(np.count_nonzero(self.board.rows["state"][: len(self._stream)] >= boards.SERVED))
        if self._watch is not None and self._ended != self._told:
            self._told = self._ended
            self._watch(self._ended, len(self._stream))

    def _fail_taken(self, client: int, why: str) -> None:
        rows = self.board.rows
        for request in np.nonzero((rows["client"] == client) & (rows["state"] == boards.TAKEN))[0]:
            self.board.fail(int(request), why, time.monotonic())

    def _end_slow(self, now: float) -> None:
        """End clients whose request takes too long for its own timer, and release those again that got lost."""
        rows = self.board.rows[: len(self._stream)]
        late = (rows["state"] == boards.TAKEN) & (now - rows["taken"] > self._setting.timeout + _GRACE)
        for number in {int(number) for number in rows["client"][late]}:
            if number in self._clients.living:
                self._clients.living[number].kill()
        # A client that is killed between taking a number and noting it takes the number with it.
        waiting = set(np.nonzero(rows["state"][: self._released] == boards.WAITING)[0].tolist())
        lost = waiting if not self._queued() and self._deaths else set()
        again = sorted(lost & self._suspects)[: _PAGES // 4]
        if again:
            os.write(self._release, struct.pack(f"={len(again)}i", *again))  # the pipe is empty: it has room
        self._suspects = lost - set(again)

    def _queued(self) -> int:
        """Bytes of numbers that nobody has taken."""
        return int(struct.unpack("i", fcntl.ioctl(self._tickets, termios.FIONREAD, b"\0\0\0\0"))[0])
