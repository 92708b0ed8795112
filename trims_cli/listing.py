"""`trims ls`: the store's models, from its snapshot, joined with the manager's index.

The snapshot holds each model's JSON already written; the JSON listing splices what the index knows into it and parses
nothing. Every other form parses the same text, so all forms say the same.
"""

from __future__ import annotations

from trims.errors import NoSuchModel, PartialFailure
from trims_cli import boundary, glance, output, selection, times
from trims_cli.output import Column, to_json

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from trims.paths import StorePaths
    from trims.shmindex.reader import Residency
    from trims_cli.output import Item
    from trims_cli.selection import Row
    from trims_cli.settings import Settings

COLUMNS = (
    Column("NAME", "name"),
    Column("ID", "id", "id"),
    Column("FORMAT", "format"),
    Column("TENSORS", "tensors", "int"),
    Column("SIZE", "nbytes", "size"),
    Column("STORED", "stored", "size"),
    Column("RESIDENT", "resident", "place"),
    Column("PINS", "pins", "int"),
    Column("USED", "used", "time"),
    Column("CREATED", "created", "time"),
    Column("CODEC", "codec", usual=False),
    Column("LABELS", "labels", usual=False),
    Column("OWNER", "owner", "int", usual=False),
    Column("GROUP", "group", "int", usual=False),
    Column("MODE", "mode", "mode", usual=False),
)


def ls(
    settings: Settings,
    models: tuple[str, ...] = (),
    filter: tuple[str, ...] = (),
    sort: str | None = None,
    limit: int | None = None,
    resident: bool = False,
) -> int:
    """List models. Names that match nothing are reported after the others are listed."""
    paths, sort = _paths(settings), settings.sort(sort, COLUMNS)
    root, told_rows = (paths.root, None) if paths is not None else _told(settings)
    snapshot = glance.look(settings)
    known = glance.by_digest(snapshot) if glance.serves(snapshot, root) and snapshot else None
    if paths and settings.form == "json" and not (models or filter or sort or limit is not None or resident):
        from trims.disk.snapshot import spliced

        output.write_blocks("ls", spliced(paths, _tails(known), _UNKNOWN if known is None else _NOWHERE))
        return 0
    all_rows = selection.load(paths) if paths is not None else told_rows or []
    rows, missing = selection.choose(all_rows, models)
    if settings.form == "json" and not (filter or sort or limit is not None or resident):
        output.write(output.document("ls", _texts(rows, known)))
    else:
        items = parse(rows, known)
        if resident:
            items = [item for item in items if item["resident"]]
        if filter or sort or limit is not None:
            from trims_cli import query

            items = query.apply(items, COLUMNS, filter, sort, limit)
        if known is None and settings.form == "table":
            items = [{**item, "resident": "?"} for item in items]
        if items or not missing or settings.form != "table":
            output.emit(settings, "ls", items, COLUMNS)
    return _report([selection.no_model(word, all_rows) for word in missing], missing, len(models))


def _paths(settings: Settings) -> StorePaths | None:
    """The store's, or None where a manager has to tell what is in it. Raises NoStore and its like."""
    from trims.errors import NoStore, NotPermitted

    try:
        return selection.store_paths(settings)
    except (NoStore, NotPermitted) as error:
        from trims_cli import told

        told.manager(settings, error).close()
        return None


def _told(settings: Settings) -> tuple[str, list[Row]]:
    """(the store's directory, its models), as the manager has them."""
    from trims.client.control import Control
    from trims_cli import told

    with Control(settings.config.sockets) as control:
        return control.welcome["store"], told.rows(control)


def parse(rows: list[Row], known: dict[str, list[Residency]] | None) -> list[Item]:
    """The listing's items as dictionaries."""
    import json

    items: list[Item] = json.loads("[" + ",".join(_texts(rows, known)) + "]")
    return items


_UNKNOWN = ',"resident":null,"pins":null,"used":null}'
_NOWHERE = ',"resident":[],"pins":0,"used":null}'


def _texts(rows: list[Row], known: dict[str, list[Residency]] | None) -> list[str]:
    """The items as JSON text: what the snapshot says of each model, then what the index adds to it."""
    tails, usual = _tails(known), _UNKNOWN if known is None else _NOWHERE
    return [prefix + tails.get(digest, usual) for digest, _, prefix in rows]


def _tails(known: dict[str, list[Residency]] | None) -> dict[str, str]:
    """What the index adds to the text of each model that it knows."""
    return {digest: _tail(here) for digest, here in (known or {}).items()}


def _tail(here: list[Residency]) -> str:
    places = sorted({r.place for r in here if r.state == "resident"})
    used = times.rfc3339(max(r.last_use for r in here))
    return f',"resident":{to_json(places)},"pins":{sum(r.pins for r in here)},"used":{to_json(used)}}}'


def _report(errors: list[NoSuchModel], missing: list[str], asked: int) -> int:
    for error in errors:
        if error is not errors[-1] or asked > len(missing):
            boundary.say(f"trims: {error}")
    if not errors:
        return 0
    if asked > len(missing):
        raise PartialFailure(f"{len(missing)} of {asked} names match nothing", missing=missing)
    raise errors[-1]
