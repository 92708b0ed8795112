"""`trims verify`: which models now, one after the other, and what is remembered of it.

Every model whose every byte was found whole is noted with the time in the user's state directory, as soon as some
seconds' worth are done and at the end, whatever that end is; so what was interrupted goes on where it was.
"""

from __future__ import annotations

import os
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from trims import units
from trims.errors import Damaged, UsageError
from trims_cli import boundary, output, selection
from trims_cli.output import Column, Item
from trims_cli.progress import Meter
from trims_cli.settings import Settings
from trims_cli.times import rfc3339

if TYPE_CHECKING:
    from trims.disk.catalog import Entry
    from trims.disk.store import Store

VERIFIED = (
    Column("NAME", "name"), Column("ID", "id", "id", usual=False), Column("SIZE", "nbytes", "size"),
    Column("RESULT", "result"), Column("BAD", "bad", "int"), Column("VERIFIED", "verified", "time", usual=False),
)  # fmt: skip
NOTING = 5.0
"""Seconds between two notes."""


class Memory:
    """When each model was last found whole."""

    def __init__(self, store: Store) -> None:
        from trims.disk import uses

        self._uses = uses
        self._path = uses.path(store.id, os.environ, "checked")
        self.times = uses.read(self._path)
        self._new: dict[str, float] = {}
        self._noted = time.monotonic()

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._write()

    def put(self, digest: str) -> None:
        self.times[digest] = self._new[digest] = time.time()
        if time.monotonic() > self._noted + NOTING:
            self._write()

    def _write(self) -> None:
        self._noted = time.monotonic()
        try:
            if self._new:
                self._uses.merge(self._path, self._new)
        except OSError as error:  # no home to write to: then nothing is remembered
            output.note(f"trims: what was verified cannot be noted: {error.strerror}")
        self._new = {}


def verify(
    settings: Settings, models: list[str], quick: bool, subset: str | None, max_age: str | None, time_limit: str | None
) -> int:
    """Check and report. Raises Damaged after the listing."""
    from trims.disk.catalog import Catalog
    from trims.disk.sampling import choose
    from trims.disk.verify import read_catalog
    from trims_cli.cmd_store import open_store

    if quick and (subset or max_age or time_limit):
        raise UsageError("--quick checks little enough", "it takes no --subset, --max-age or --time-limit")
    age = units.parse_duration(max_age) if max_age else None
    end = time.monotonic() + (units.parse_duration(time_limit) if time_limit else units.FOREVER)
    store = open_store(settings)
    findings: list[Any] = []
    if models:
        entries = Catalog(store.paths).match(selection.words(models))
    else:
        entries, findings = read_catalog(store)
    broken = list(findings)
    with Memory(store) as memory:
        chosen = choose(entries, memory.times, subset, age, time.time())
        found = _check(settings, store, chosen, quick, end, memory)
        findings += [finding for part in found.values() for finding in part]
        items = [
            _item(e.ref, e.digest, e.nbytes, found[e.digest], memory.times.get(e.digest))
            for e in entries
            if e.digest in found
        ]
    items += [_item(finding.model, None, None, [finding]) for finding in broken]
    output.emit(settings, "verify", items, VERIFIED)
    if len(found) < len(chosen):
        output.note(f"trims: the time is over: {len(chosen) - len(found)} models are left for the next run")
    _conclude(items, findings)
    return 0


def _check(
    settings: Settings, store: Store, chosen: list[Entry], quick: bool, end: float, memory: Memory
) -> dict[str, list[Any]]:
    """Digest → findings of those that were checked before the end."""
    from trims.disk.verify import verify_model

    found: dict[str, list[Any]] = {}
    for entry in chosen:
        if time.monotonic() >= end:
            break
        with Meter(settings, entry.ref, "verify") as meter:
            found[entry.digest] = verify_model(store, entry, quick, meter.add)
        if not quick and not found[entry.digest]:
            memory.put(entry.digest)
    return found


def _conclude(items: list[Item], findings: list[Any]) -> None:
    for finding in findings:
        boundary.say(f"trims: damage in {finding.model}: {finding.part}: {finding.message}")
    if findings:
        bad = sum(item["bad"] > 0 for item in items)
        raise Damaged(
            f"{bad} of {len(items)} models are damaged", "", "import them again",
            findings=[{"model": f.model, "part": f.part, "message": f.message} for f in findings],
        )  # fmt: skip


def _item(
    name: str, digest: str | None, nbytes: int | None, findings: list[Any], verified: float | None = None
) -> Item:
    return {
        "name": name,
        "id": digest,
        "nbytes": nbytes,
        "result": "damaged" if findings else "ok",
        "bad": len(findings),
        "verified": rfc3339(verified) if verified else None,
        "findings": [{"model": f.model, "part": f.part, "message": f.message} for f in findings],
    }
