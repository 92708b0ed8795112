"""The request-trace file: what was asked of a manager, when, by whom, and how it went; columns to JSON lines and back.

Line 1 is the header, {"format":"trims.trace/1","kind":"requests","started":TIME,...}: further fields tell of the
machine (policy, budgets). Every further line is one of

    {"model":{"name":..,"digest":..,"nbytes":..,"tensors":..,"variant":..,"place":..}}    model 0, 1, 2, ...
    {"client":{"pid":..,"job":..}}                                                        client 0, 1, 2, ...
    [at, client, model, how, wait, held]                                                  a request
    {"lost":N}                                                        N events that the recorder came too late for
    {"ended":SECONDS}                                                 the recording was ended so long after its start

`at` is the arrival in seconds since `started`; `client` and `model` count the lines above; `how` is the number of
`outcomes.HOW` (0 hit, 1 joined: waited for a load that another request began, 2 loaded, 4 failed); `wait` is seconds to
the answer; `held` is the lease's length in seconds, null for a failed request and while the lease is held.

The file is valid after every line, so a recorder that is killed leaves one: a last line without its end is left out.
Requests may stand in any order; reading sorts them by arrival. Times are kept to the microsecond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
import numpy.typing as npt

from trims.errors import BadInput
from trims.workload.outcomes import HOW
from trims.workload.traced import REQUEST, Requests, Trace, TracedClient, TracedModel

FORMAT: Final = "trims.trace/1"
LONGEST: Final = 1 << 20
"""Most bytes of a line: a file with longer ones is none of ours."""
_CHUNK = 1 << 22
_DIGITS = 6


class Entry(msgspec.Struct, omit_defaults=True):
    """A line that is no request; one of its fields is set."""

    model: TracedModel | None = None
    client: TracedClient | None = None
    lost: int = 0
    ended: float | None = None


Row = tuple[float, int, int, int, float, float | None]
_LINE: msgspec.json.Decoder[Row | Entry] = msgspec.json.Decoder(Row | Entry)
_ENCODER = msgspec.json.Encoder()


# ---- writing


def header(started: str, about: Mapping[str, Any] | None = None) -> bytes:
    """Line 1. started: an RFC 3339 time."""
    return line({"format": FORMAT, "kind": "requests", "started": started, **(about or {})})


def line(value: object) -> bytes:
    """One line of the file: of an Entry, or of a request as (at, client, model, how, wait, held)."""
    return _ENCODER.encode(value) + b"\n"


def row(at: float, client: int, model: int, how: int, wait: float, held: float | None) -> Row:
    """A request for `line`, its times as the file keeps them."""
    kept = None if held is None else round(held, _DIGITS)
    return round(at, _DIGITS), client, model, how, round(wait, _DIGITS), kept


def write(trace: Trace, file: BinaryIO) -> None:
    """Write the whole trace. Raises OSError of the file."""
    file.write(header(trace.started, trace.about))
    file.write(b"".join(line(Entry(model=model)) for model in trace.models))
    file.write(b"".join(line(Entry(client=client)) for client in trace.clients))
    for begin in range(0, len(trace), 50_000):
        part = trace.requests[begin : begin + 50_000]
        columns = [part[name] for name in REQUEST.names or ()]
        plain = [np.round(c, _DIGITS).tolist() if c.dtype.kind == "f" else c.tolist() for c in columns]
        plain[-1] = [None if held != held else held for held in plain[-1]]
        file.write(_ENCODER.encode_lines(zip(*plain, strict=True)))
    if trace.lost:
        file.write(line(Entry(lost=trace.lost)))
    file.write(line(Entry(ended=round(trace.seconds, _DIGITS))))


# ---- reading


def read(file: BinaryIO, name: str = "the trace") -> Trace:
    """The trace in a file; `name` is the file's, for messages. Raises OSError, BadInput with the bad line's number."""
    reader = _Reader(name)
    for first, lines in _blocks(file, name):
        reader.take(first, lines)
    return reader.finish()


def _blocks(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """(number of its first line, whole lines) again and again; what stands behind the last end of line is left out."""
    number, rest = 1, b""
    while data := file.read(_CHUNK):
        data = rest + data
        end = data.rfind(b"\n") + 1
        lines, rest = data[:end], data[end:]
        if len(rest) > LONGEST:
            raise _bad(name, number + lines.count(b"\n"), f"is over {LONGEST >> 20} MiB long")
        if lines:
            yield number, lines
            number += lines.count(b"\n")


class _Reader:
    """Takes blocks of lines; holds tables, and columns of a block each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._about: dict[str, Any] | None = None
        self._models: list[TracedModel] = []
        self._clients: list[TracedClient] = []
        self._parts: list[Requests] = [np.zeros(0, REQUEST)]
        self._lost, self._ended = 0, 0.0

    def take(self, first: int, lines: bytes) -> None:
        if self._about is None:
            head, _, lines = lines.partition(b"\n")
            self._about = _header(head, self._name)
            first += 1
        known = len(self._models), len(self._clients)
        try:
            found = _LINE.decode_lines(lines)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            raise self._blame(first, lines, known) from None
        entries = [each for each in found if isinstance(each, Entry)]
        for entry in entries:
            self._enter(entry)
        part = self._part([each for each in found if type(each) is tuple] if entries else found)
        if part is None or not all(_sound(entry) for entry in entries):
            raise self._blame(first, lines, known)
        self._parts.append(part)

    def finish(self) -> Trace:
        if self._about is None:
            raise BadInput(f"{self._name} is no trace", "it has no whole line", "record one with `trims trace record`")
        requests = np.concatenate(self._parts)
        requests = requests[np.argsort(requests["at"], kind="stable")]
        requests.flags.writeable = False
        times = [requests["at"] + requests["wait"], requests["at"] + requests["wait"] + requests["held"]]
        last = max((float(np.nanmax(t)) for t in times if len(t) and not np.isnan(t).all()), default=0.0)
        about = {key: value for key, value in self._about.items() if key not in ("format", "kind", "started")}
        return Trace(
            str(self._about["started"]), tuple(self._models), tuple(self._clients), requests,
            self._ended or round(last, _DIGITS), self._lost, about,
        )  # fmt: skip

    def _enter(self, entry: Entry) -> None:
        if entry.model is not None:
            self._models.append(entry.model)
        if entry.client is not None:
            self._clients.append(entry.client)
        self._lost += entry.lost
        self._ended = entry.ended if entry.ended is not None else self._ended

    def _part(self, rows: list[Any]) -> Requests | None:
        """The requests as columns; None when one of them cannot be."""
        try:
            part = np.array(rows, dtype=REQUEST)
        except OverflowError:
            return None
        return None if _wrong(part, len(self._models), len(self._clients)).any() else part

    def _blame(self, first: int, lines: bytes, known: tuple[int, int]) -> BadInput:
        """The error of the first bad line of a block that has one. known: models and clients before it."""
        del self._models[known[0] :], self._clients[known[1] :]
        for number, text in enumerate(lines.split(b"\n")[:-1], first):
            if not text.strip():
                continue
            try:
                found = _LINE.decode(text)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                return _bad(self._name, number, f"is none of a trace: {error}")
            if isinstance(found, Entry) and not _sound(found):
                return _bad(self._name, number, "has a number out of range")
            if isinstance(found, Entry):
                self._enter(found)
            elif self._part([found]) is None:
                return _bad(self._name, number, "has a number out of range, or names no model or client")
        return _bad(self._name, first, "or one behind it is none of a trace")


def _wrong(part: Requests, models: int, clients: int) -> npt.NDArray[np.bool_]:
    """Which requests cannot be."""
    held = part["held"]
    wrong: npt.NDArray[np.bool_] = ~(np.isfinite(part["at"]) & (part["at"] >= 0))
    wrong |= ~(np.isfinite(part["wait"]) & (part["wait"] >= 0)) | ~(np.isnan(held) | (np.isfinite(held) & (held >= 0)))
    wrong |= (part["model"] < 0) | (part["model"] >= models) | (part["client"] < 0) | (part["client"] >= clients)
    return wrong | (part["how"] >= len(HOW))


def _sound(entry: Entry) -> bool:
    model, ended = entry.model, entry.ended
    whole = model is None or (bool(model.name) and min(model.nbytes, model.tensors) >= 0)
    return whole and entry.lost >= 0 and (ended is None or (math.isfinite(ended) and ended >= 0))


def _header(text: bytes, name: str) -> dict[str, Any]:
    hint = "record one with `trims trace record`"
    try:
        about = msgspec.json.decode(text, type=dict[str, Any])
        format = str(about.get("format", ""))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise BadInput(f"{name} is no trace", "line 1 is no header", hint) from None
    if format.startswith("trims.trace/") and format != FORMAT:
        raise BadInput(f"{name} cannot be read", f"line 1 says {format}; this trims reads {FORMAT}")
    if format != FORMAT or about.get("kind") != "requests" or not isinstance(about.get("started"), str):
        raise BadInput(f"{name} is no trace", "line 1 is no header of a log of requests", hint)
    return about


def _bad(name: str, number: int, what: str) -> BadInput:
    return BadInput(f"{name} cannot be read", f"line {number} {what}")
