"""`trims warm --dry-run`: what several models would need, what is free for each, and which others would go for it.

The models are planned together, in the order given: each finds the room that those before it would leave. What cannot
be met has its reason, and on a terminal a table of who holds what.
"""

from __future__ import annotations

from trims import units
from trims.errors import NoRoom, TrimsError
from trims_cli import output, targets
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

COLUMNS = (
    Column("NAME", "name"), Column("ID", "id", "id", usual=False), Column("PLACE", "place", "place"),
    Column("VARIANT", "variant", usual=False), Column("OUTCOME", "outcome"), Column("NEED", "need", "size"),
    Column("FREE", "free", "size"), Column("VICTIMS", "_victims"),
)  # fmt: skip
VICTIMS = (
    Column("VICTIM", "name"), Column("SIZE", "nbytes", "size"), Column("RELOAD", "load_seconds", "took"),
    Column("VARIANT", "variant", usual=False), Column("FOR", "_for"),
)  # fmt: skip
HOLDERS = (
    Column("HOLDS", "ref"), Column("SIZE", "nbytes", "size"), Column("WHY", "why"), Column("BY", "_by"),
)  # fmt: skip


def conclude(settings: Settings, items: list[Item], failed: list[TrimsError], tried: int) -> int:
    """Print the plan; then raise what stands in its way, or give 0."""
    if items or settings.form in ("json", "jsonl"):
        output.emit(settings, "warm", items, COLUMNS, None)
    if settings.form == "table" and not settings.quiet:
        _explain(settings, items, [error for error in failed if isinstance(error, NoRoom)])
    return targets.conclude(failed, tried)


def _explain(settings: Settings, items: list[Item], short: list[NoRoom]) -> None:
    """The victims with what each would cost, their sum, and who holds what is missing."""
    victims = [{**victim, "_for": item["name"]} for item in items for victim in item["victims"]]
    if victims:
        output.write("\n" + _table(settings, victims, VICTIMS))
        nbytes, seconds = (sum(v[field] for v in victims) for field in ("nbytes", "load_seconds"))
        count = f"{len(victims)} model{'s' if len(victims) != 1 else ''}"
        output.write(f"{count} would go, {_size(settings, nbytes)}; loading again takes {seconds:.2f}s\n")
    for place in dict.fromkeys(str(error.details["place"]) for error in short):
        held = _held([error for error in short if error.details["place"] == place])
        if held:
            shown = output.cell("place", place, settings.verbose)
            output.write(f"\non {shown}:\n" + _table(settings, held, HOLDERS))


def _held(short: list[NoRoom]) -> list[Item]:
    """What stands in the way, each once: several refusals name the same."""
    seen: dict[str, Item] = {}
    for error in short:
        for item in error.details["blockers"]:  # type: ignore[attr-defined]
            seen.setdefault(item["ref"], {**item, "_by": _by(item)})
    return list(seen.values())


def _by(blocker: Item) -> list[str]:
    """The owners of pins, and the processes that hold it."""
    owners = [pin["owner"] + (f"({pin['reason']})" if pin["reason"] else "") for pin in blocker["pins"]]
    return owners + [f"pid:{holder['pid']}" for holder in blocker["holders"]]


def _table(settings: Settings, items: list[Item], columns: tuple[Column, ...]) -> str:
    """A table of its own columns: `--columns` is for the first one."""
    shown = [column for column in columns if column.usual]
    rows = [[output.cell(c.kind, item.get(c.field), False, settings.bytes) for c in shown] for item in items]
    rows = rows if settings.no_header else [[column.name for column in shown], *rows]
    return output.table(rows, [column.kind in output.RIGHT for column in shown])


def _size(settings: Settings, nbytes: int) -> str:
    return str(nbytes) if settings.bytes else units.format_size(nbytes)
