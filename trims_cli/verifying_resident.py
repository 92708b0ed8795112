"""`trims verify --resident`: whether what is in memory, on the host or a GPU, still is what was imported.

Each form is attached where it is, so it cannot go meanwhile, and read through the same mapping that every client has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trims.errors import Damaged
from trims_cli import boundary, output, processes, targets
from trims_cli.output import Column, Item
from trims_cli.progress import Meter
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims.client.attachment import AnyRegion

CHECKED = (
    Column("NAME", "name"), Column("PLACE", "place"), Column("ID", "id", "id", usual=False),
    Column("VARIANT", "variant", usual=False), Column("SIZE", "nbytes", "size"), Column("RESULT", "result"),
    Column("BAD", "bad", "int"),
)  # fmt: skip


def verify(settings: Settings, models: tuple[str, ...]) -> int:
    """Check what is resident of these models, or of all, and report. Raises Damaged after the listing."""
    snapshot = processes.snapshot(settings)
    rows = processes.rows(snapshot)
    if models:
        rows = processes.chosen(rows, models)
    forms = {
        (row["id"], row["variant"], row["place"]): row for row in rows if row["state"] == "resident" and row["model"]
    }
    items, errors = targets.each(forms.values(), lambda row: _check(settings, snapshot.socket, row))
    columns = output.telling_forms_apart(CHECKED, items, "name")
    output.emit(settings, "verify-resident", items, columns, "name")
    damaged = [item for item in items if item["bad"]]
    for item in damaged:
        boundary.say(f"trims: damage in {item['name']} on {item['place']}: {', '.join(item['damaged'])}")
    if damaged:
        what = f"{len(damaged)} of {len(items)} forms are damaged in memory"
        findings = [{"model": item["name"], "place": item["place"], "parts": item["damaged"]} for item in damaged]
        raise Damaged(what, "", "evict them with `trims evict`", findings=findings)
    return targets.conclude(errors, len(forms))


def _check(settings: Settings, socket: str, row: Item) -> Item:
    from trims.client.checking import damaged

    done = 0

    def add(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        meter(min(done, row["nbytes"]), row["nbytes"])

    with Meter(settings, row["model"], "verify") as meter:
        found = damaged(_attach(socket, row), add)
    return {
        "name": row["model"], "id": row["id"], "variant": row["variant"], "place": row["place"],
        "nbytes": row["nbytes"], "result": "damaged" if found else "ok", "bad": len(found), "damaged": found,
    }  # fmt: skip


def _attach(socket: str, row: Item) -> AnyRegion:
    """Map the form where it is. Raises TimedOut when it has gone meanwhile, DeviceLost for a GPU not seen here."""
    from trims.client.choosing import ManagerBackend

    return ManagerBackend(socket, f"id:{row['id']}", row["place"], 0.0, None).attach(row["variant"]).region
