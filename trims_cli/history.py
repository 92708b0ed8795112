"""What happened to a model, as the manager remembers it: `trims show --history`, and the details in `top`.

A reason is a sentence, so in a table its column comes last: what stands before it can still be told apart by spaces.
"""

from __future__ import annotations

from trims.client.control import Control
from trims.errors import ManagerNotRunning, one_line
from trims_cli import glance, output
from trims_cli.output import Column, Item
from trims_cli.settings import Settings
from trims_cli.times import rfc3339

REASON = Column("REASON", "reason")
COLUMNS = (
    Column("TIME", "time"), Column("PLACE", "place", "place"), Column("VARIANT", "variant"), Column("EVENT", "_event"),
    Column("SIZE", "nbytes", "size", usual=False), Column("TOOK", "seconds", "took", usual=False),
    Column("BY", "by", usual=False), Column("POLICY", "policy", usual=False), REASON,
)  # fmt: skip
LIMIT = 50
_TOOK = ("loaded",)


def show(settings: Settings, digest: str, name: str, limit: int = LIMIT, any_store: bool = False) -> int:
    """Print what is remembered of a model, newest last. any_store: whichever store the manager serves.

    Raises ManagerNotRunning when no manager of the store runs.
    """
    snapshot = glance.look(settings)
    if snapshot is None or not (any_store or glance.serves(snapshot, settings.config.store)):
        what = "no manager is running" if snapshot is None else "the manager that runs serves another store"
        raise ManagerNotRunning(what, "only a manager remembers what happened", "start one with `trims start`")
    with Control([snapshot.socket]) as control:
        items = ask(control, digest, limit)
    if settings.form not in ("table", "tsv"):
        output.emit(settings, "history", items, COLUMNS)
    elif items:
        output.write(text(settings, items))
    else:
        output.tell(settings, lambda: f"the manager remembers nothing of {name}")
    return 0


def ask(control: Control, digest: str, limit: int = LIMIT) -> list[Item]:
    """The last `limit` things that happened to a model, oldest first."""
    return [shape(line) for line in control.request("history", wait=5.0, digest=digest, limit=limit)]


def shape(line: Item) -> Item:
    """A line of the protocol as an item of the listing."""
    chosen = bool(line["rank"])
    return {
        "time": rfc3339(line["time"]),
        "name": line["ref"],
        "id": line["digest"],
        "place": line["place"],
        "variant": line["variant"],
        "event": line["what"],
        "_event": line["what"].replace(" ", "-"),
        "nbytes": line["nbytes"],
        "seconds": line["seconds"],
        "why": line["why"] or None,
        "by": line["by"] or None,
        "policy": line["policy"] if chosen else None,
        "rank": line["rank"] if chosen else None,
        "of": line["of"] if chosen else None,
        "reason": reason(line),
    }


def reason(line: Item) -> str:
    """Why it happened, in one sentence: what for, who asked, which policy chose it and as which of how many."""
    parts = [line["why"]] if line["why"] else []
    if line["by"]:
        parts.append(f"asked by {line['by']}" if line["by"].startswith("pid ") else f"by {line['by']}")
    said = ", ".join(parts)
    if line["rank"]:
        said += f"; {line['policy']}, " + (f"{line['rank']} of {line['of']}" if line["of"] > 1 else "the only one")
    if line["what"] in _TOOK:
        said += f"{', ' if said else ''}in {output.cell('took', line['seconds'])}"
    return said


def text(settings: Settings, items: list[Item]) -> str:
    """The lines as a table or as tsv, with the reasons as they are said."""
    whole = settings.form == "tsv"
    shown = output.choose(COLUMNS, settings.columns)
    rows = [[_cell(settings, column, item, whole) for column in shown] for item in items]
    rows = rows if settings.no_header else [[column.name for column in shown], *rows]
    if whole:
        return "".join("\t".join(row) + "\n" for row in rows)
    return output.table(rows, [column.kind in output.RIGHT for column in shown])


def _cell(settings: Settings, column: Column, item: Item, whole: bool) -> str:
    if column is REASON:
        return one_line(item["reason"]).replace("\t", " ") or "-"
    whole = whole or (column.kind == "place" and settings.verbose)
    return output.cell(column.kind, item[column.field], whole, settings.bytes)
