"""`trace record` and `trace show`: what they do around the file."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from trims import units
from trims.client.control import Control
from trims.errors import ManagerUnreachable, TrimsError, UsageError
from trims.linux import atomic
from trims.workload import popularity, trace
from trims.workload.outcomes import FAILED, HIT, JOINED, LOADED
from trims.workload.plan import Stream
from trims.workload.traced import Trace, TracedModel
from trims_cli import boundary, output, tracing
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.disk.store import Store

RECORDED = (
    Column("FILE", "file"), Column("REQUESTS", "requests", "int"), Column("MODELS", "models", "int"),
    Column("CLIENTS", "clients", "int"), Column("SECONDS", "seconds", "took"), Column("LOST", "lost", "int"),
)  # fmt: skip
MODELS = (
    Column("NAME", "name"), Column("ID", "id", "id"), Column("SIZE", "nbytes", "size"),
    Column("TENSORS", "tensors", "int", usual=False), Column("REQUESTS", "requests", "int"),
    Column("SHARE", "_share"), Column("HITS", "hits", "int"), Column("JOINED", "joined", "int"),
    Column("LOADED", "loaded", "int"), Column("FAILED", "failed", "int"),
)  # fmt: skip


def record(settings: Settings, file: str, duration: str | None, force: bool) -> int:
    """Record until interrupted, or for so long; an interrupt is how it usually ends, so the exit code is 0 then."""
    seconds = units.parse_duration(duration) if duration is not None else float("inf")
    if file == "-" and sys.stdout.isatty():
        raise UsageError("a trace is no text for a terminal", "", "redirect the output, or name a file")
    with Control(settings.config.sockets) as control:
        out = tracing.Output(file, force)
        try:
            recorder, cursor = tracing.begin(control, out, _Describing(str(control.welcome["store"])))
            with _Watched(settings, recorder) as watched:
                how = tracing.record(recorder, cursor, out, recorder.began + seconds, watched)
        finally:
            out.close()
    item = {
        "file": file, "requests": recorder.requests, "models": recorder.models, "clients": recorder.clients,
        "held": recorder.held, "seconds": recorder.seconds, "lost": recorder.lost,
    }  # fmt: skip
    if how.error is not None:
        why = f"{file} has the {recorder.requests} requests until then"
        raise ManagerUnreachable(how.error.what, why, how.error.hint)
    _say(settings, item)
    if how.number == signal.SIGHUP:
        boundary.die(how.number)
    return 0


class _Watched:
    """A line on the terminal behind standard error that says how far it is, and is gone at the end."""

    def __init__(self, settings: Settings, recorder: tracing.Recorder) -> None:
        watched = not settings.quiet and settings.form == "table" and settings.config["ui.progress"] != "off"
        self._draw, self._recorder = watched and sys.stderr.isatty(), recorder

    def __enter__(self) -> _Watched:
        return self

    def __exit__(self, *_: object) -> None:
        if self._draw:
            sys.stderr.write("\r\x1b[K")

    def __call__(self) -> None:
        if self._draw:
            age = units.format_age(time.monotonic() - self._recorder.began)
            sys.stderr.write(f"\r\x1b[Krecording: {self._recorder.requests} requests in {age}; Ctrl-C ends it")
            sys.stderr.flush()


def _say(settings: Settings, item: Item) -> None:
    counts = f"{item['requests']} requests for {item['models']} models by {item['clients']} clients"
    text = f"recorded {counts} in {item['seconds']:.1f}s: {item['file']}"
    if item["lost"]:
        output.note(f"{item['lost']} events came faster than they could be read, and are lost")
    if item["file"] == "-":
        if not settings.quiet:
            output.note(text)
    elif settings.form == "table":
        output.tell(settings, lambda: text)
    else:
        output.emit(settings, "trace-record", [item], RECORDED, "file")


class _Describing:
    """Looks models up in the manager's store; what is not there (any more) is described by what the manager said."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._store: Store | None = None

    def __call__(self, ref: str, digest: str, variant: str, place: str, nbytes: int) -> TracedModel:
        from trims.disk.catalog import Catalog
        from trims.disk.sidecar import read_sidecar
        from trims.disk.store import open_store

        try:
            self._store = self._store or open_store(self._root)
            if not digest:
                entry = Catalog(self._store.paths).resolve(ref)
                ref, digest = entry.ref, entry.digest
            tensors = read_sidecar(self._store.paths.sidecar(digest)).manifest.tensors
        except (TrimsError, OSError):
            return TracedModel(ref or "?", digest, nbytes, 0, variant, place)
        return TracedModel(ref, digest, sum(t.nbytes for t in tensors), len(tensors), variant, place)


def show(settings: Settings, file: str) -> int:
    """Print what is in a trace."""
    found = _read(file)
    item = summary(found)
    rows = models(found)
    if settings.form == "table":
        output.tell(settings, lambda: _text(item))
        output.emit(settings, "trace-show", rows, MODELS)
    elif settings.form == "tsv":
        output.emit(settings, "trace-show", rows, MODELS)
    else:
        plain = [{key: value for key, value in row.items() if key[0] != "_"} for row in rows]
        output.emit(settings, "trace-show", [{"file": file, **item, "popularity": plain}], MODELS, None)
    return 0


def _read(file: str) -> Trace:
    try:
        if file == "-":
            return trace.read(sys.stdin.buffer, "standard input")
        with open(file, "rb") as opened:
            return trace.read(opened, file)
    except FileNotFoundError:
        raise UsageError(f"there is no file {file}") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a directory", "", "name a recorded trace") from None
    except OSError as error:
        raise atomic.translate(error, f"reading {file}") from None


def summary(found: Trace) -> dict[str, Any]:
    """The figures of a whole trace; null where there is nothing to take them of."""
    import numpy as np

    rows = found.requests
    counts = dict(zip(("hits", "joined", "loaded", "native", "failed"), np.bincount(rows["how"], minlength=5).tolist(),
                      strict=True))  # fmt: skip
    served = counts["hits"] + counts["joined"] + counts["loaded"]
    waits = rows["wait"][rows["how"] != FAILED]
    held = rows["held"][~np.isnan(rows["held"])]
    digests = {m.digest for m in found.models if m.digest}
    stream = found.stream()
    figures = popularity.describe(stream).to_dict()
    return {
        "started": found.started,
        "seconds": found.seconds,
        "requests": len(found),
        "models": len(digests),
        "clients": len(found.clients),
        "peak": found.peak(),
        "rate": len(found) / found.seconds if found.seconds else None,
        "hits": counts["hits"], "joined": counts["joined"], "loaded": counts["loaded"], "failed": counts["failed"],
        "hit_rate": counts["hits"] / served if served else None,
        "wait_p50": float(np.quantile(waits, 0.5)) if len(waits) else None,
        "wait_p99": float(np.quantile(waits, 0.99)) if len(waits) else None,
        "held_mean": float(held.mean()) if len(held) else None,
        "still_held": int(np.isnan(rows["held"]).sum()) - counts["failed"],
        "bytes_asked": figures["bytes_asked"],
        "bytes_of_models": figures["working_set"],
        "zipf": figures["zipf"], "reuse_p50": figures["reuse_p50"],
        "lru": _lru(stream),
        "lost": found.lost,
        "about": dict(found.about),
    }  # fmt: skip


def _lru(stream: Stream) -> list[dict[str, Any]]:
    """What an LRU of a tenth, a quarter, half and three quarters of all bytes would have hit."""
    total = stream.working_set()
    shares = (0.1, 0.25, 0.5, 0.75)
    if not total:
        return []
    curve = popularity.lru_curve(stream, [int(share * total) for share in shares])
    return [
        {"share": share, "budget": int(budget), "hit_rate": float(rate)}
        for share, budget, rate in zip(shares, curve.budgets, curve.hit_rate, strict=True)
    ]


def models(found: Trace) -> list[Item]:
    """One row a model, most popular first. What the store did not have comes by its name."""
    rows: dict[str, Item] = {}
    total = max(1, len(found))
    for number, model in enumerate(found.models):
        how = found.requests["how"][found.requests["model"] == number]
        row = rows.setdefault(model.digest or f"no digest: {model.name}", {
            "name": model.name, "id": model.digest or None, "nbytes": model.nbytes, "tensors": model.tensors,
            "requests": 0, "hits": 0, "joined": 0, "loaded": 0, "failed": 0,
        })  # fmt: skip
        row["requests"] += len(how)
        for name, code in (("hits", HIT), ("joined", JOINED), ("loaded", LOADED), ("failed", FAILED)):
            row[name] += int((how == code).sum())
    for row in rows.values():
        row["share"] = row["requests"] / total
        row["_share"] = f"{100 * row['share']:.1f}%"
    return sorted(rows.values(), key=lambda row: (-row["requests"], row["name"]))


def _text(item: Item) -> str:
    def ms(seconds: float | None) -> str:
        return "-" if seconds is None else f"{seconds * 1000:.3g} ms"

    rate = f", {item['rate']:.3g} a second" if item["rate"] is not None else ""
    hit = f"{100 * item['hit_rate']:.1f}%" if item["hit_rate"] is not None else "-"
    lines = [
        f"{item['requests']} requests in {item['seconds']:.1f}s since {item['started']}{rate}",
        f"{item['models']} models of {units.format_size(item['bytes_of_models'])}, {item['clients']} clients, "
        f"at most {item['peak']} requests under way at once",
        f"{item['hits']} hits ({hit}), {item['joined']} joined, {item['loaded']} loaded, {item['failed']} failed; "
        f"wait p50 {ms(item['wait_p50'])}, p99 {ms(item['wait_p99'])}",
    ]
    if item["lru"]:
        rates = ", ".join(f"{units.format_size(r['budget'])} {100 * r['hit_rate']:.0f}%" for r in item["lru"])
        lines.append(f"LRU would hit, within a budget of {rates}")
    if item["lost"]:
        lines.append(f"{item['lost']} events are missing: they came faster than they could be recorded")
    return "\n".join(lines)
