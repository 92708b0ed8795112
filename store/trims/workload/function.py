"""A client of a workload: a prewarmed runtime that takes requests and has one process serve each.

    python -m trims.workload.function SPEC          a client (SPEC is JSON, see `clients.spec`)
    python -m trims.workload.function SPEC NUMBER   serve one request in this very interpreter (start="process")

A client takes the next number from the ticket pipe, which all clients share: a read of four bytes takes one whole
number, so the order in which requests are taken is the pipe's. It says one byte on its own pipe when it is ready and
after each request. For start="fork" it forks: the child has the imported libraries, a connection of its own to the
manager (`trims.client.connections` drops the parent's at a fork) and nothing else, writes its times into the board and
ends by os._exit. The kernel ends a child that takes too long (an interval timer) or whose client has ended. A client
ends when the pipe does: with the run, or with the coordinator.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from trims.linux import process
from trims.workload import board as boards
from trims.workload import coldness
from trims.workload.board import Board
from trims.workload.functions import Job, function

_HOW = {"hit": 0, "joined": 1, "loaded": 2}
_NATIVE = 3


class Client:
    """One client. `spec` as `clients.spec` makes it."""

    def __init__(self, spec: dict[str, Any], text: str) -> None:
        self._spec, self._text = spec, text
        self._board = Board(spec["board"])

    def prepare(self) -> None:
        """Import what requests will need, and move it out of the collector's sight, so that children share it."""
        for name in sorted({model["function"] for model in self._spec["models"]}):
            function(name).prepare(self._spec["threads"], self._spec["side"])
        gc.collect()
        gc.freeze()

    def serve(self, request: int) -> None:
        """Have one process serve the request, and wait for its end."""
        row = self._board.rows[request]
        row["client"], row["taken"], row["state"] = self._spec["client"], time.monotonic(), boards.TAKEN
        model = self._spec["models"][row["model"]]
        if self._spec["cache"] == "cold":
            row["cached"] = coldness.chill(model["files"])
        if not row["asked"]:
            row["asked"] = time.monotonic()
        pid = os.fork() if self._spec["start"] == "fork" else self._spawn(request)
        if not pid:
            answer(self._spec, self._board, request)
        _, status = os.waitpid(pid, 0)
        if row["state"] == boards.TAKEN:
            self._board.fail(request, _ending(status, self._spec["timeout"]), time.monotonic())

    def _spawn(self, request: int) -> int:
        words = [sys.executable, "-P", "-m", "trims.workload.function", self._text, str(request)]
        return os.posix_spawn(sys.executable, words, os.environ)


def answer(spec: dict[str, Any], board: Board, request: int) -> NoReturn:
    """Serve one request in this process and end it."""
    row = board.rows[request]
    try:
        row["began"] = time.monotonic()
        row["pid"] = os.getpid()
        process.end_with_parent()
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, spec["timeout"])
        model = spec["models"][row["model"]]
        job = Job(model["ref"], model["file"], spec["place"], spec["share"], spec["threads"], timeout=spec["timeout"])
        how, result = "native", None
        if spec["start"] == "process":
            function(model["function"]).prepare(spec["threads"], spec["side"])
        if spec["side"] == "native":
            result = function(model["function"]).native(job)
        else:
            how, result = function(model["function"]).shared(job)
        row["ready"] = time.monotonic()
        row["checksum"] = result()
        row["done"] = time.monotonic()
        row["how"] = _HOW.get(how, _NATIVE)
        row["state"] = boards.SERVED
        os._exit(0)
    except BaseException as error:
        board.fail(request, f"{type(error).__name__}: {error}", time.monotonic())
        os._exit(1)


def _ending(status: int, timeout: float) -> str:
    """Why a process that said nothing has ended, by its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return (
            f"it took longer than {timeout:g} s" if number == signal.SIGALRM else f"signal {number} ended its process"
        )
    return f"its process ended with status {os.waitstatus_to_exitcode(status)}"


def main(words: list[str]) -> int:
    """A client until the tickets end; or, with a number, that one request."""
    spec = json.loads(words[0])
    if len(words) > 1:
        answer(spec, Board(spec["board"]), int(words[1]))
    process.end_with_parent()
    client = Client(spec, words[0])
    if spec["start"] == "fork":
        client.prepare()
    os.write(spec["say"], b"r")
    while ticket := os.read(spec["tickets"], 4):
        client.serve(int.from_bytes(ticket, "little"))
        os.write(spec["say"], b".")
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(status)  # no library gets to clean up: a client has nothing that outlives it
