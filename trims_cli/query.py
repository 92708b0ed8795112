"""`--filter KEY OP VALUE`, `--sort KEY[:desc]` and `--limit` of a listing, by the kinds of its columns.

A key is a column's name in lower case, or `tag`, `pinned`, or `label.NAME`. Sizes are written 20GiB, ages 30d: an age
filter compares how long ago, so `created>30d` is older than thirty days. Words compare with `=` and `!=`, as globs; a
place whole, and as it is shown.
Several filters must all hold. A value that is not known never passes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from trims import places, units
from trims.errors import UsageError
from trims_cli import times
from trims_cli.output import Column, Item

_OPS = (">=", "<=", "!=", "=", ">", "<")  # longest first: `>=` is not `>`


def apply(
    items: list[Item], columns: tuple[Column, ...], filters: Sequence[str], sort: str | None, limit: int | None
) -> list[Item]:
    """The items that pass every filter, in order, at most `limit`. Raises UsageError."""
    for text in filters:
        key, op, value = _split(text)
        kind = _kind(key, columns)
        items = [item for item in items if _holds(kind, _value(item, key, columns, kind), op, value)]
    if sort:
        key, _, direction = sort.partition(":")
        if direction not in ("", "asc", "desc"):
            raise UsageError(f"bad order {direction!r}", "", "use KEY, KEY:asc or KEY:desc")
        kind = _kind(key.lower(), columns)
        items = sorted(
            items, key=lambda item: _rank(_value(item, key.lower(), columns, kind)), reverse=direction == "desc"
        )
    if limit is not None and limit < 0:
        raise UsageError(f"bad limit {limit}", "", "give 0 or more")
    return items if limit is None else items[:limit]


def _split(text: str) -> tuple[str, str, str]:
    at = min((text.find(op[0]) for op in _OPS if op[0] in text), default=-1)
    for op in _OPS:
        if at > 0 and text.startswith(op, at):
            return text[:at].strip().lower(), op, text[at + len(op) :].strip()
    raise UsageError(f"bad filter {text!r}", "", "write KEY OP VALUE, like size>1GiB; see `trims help filters`")


def _kind(key: str, columns: tuple[Column, ...]) -> str:
    if key == "tag" or key.startswith("label."):
        return "text"
    if key == "pinned":
        return "flag"
    for column in columns:
        if column.name.lower() == key:
            return column.kind
    raise UsageError(
        f"no key {key!r} to filter or sort by", "", "use one of " + ", ".join(c.name.lower() for c in columns)
    )


def _value(item: Item, key: str, columns: tuple[Column, ...], kind: str) -> Any:
    if key == "tag":
        return str(item["name"]).partition(":")[2]
    if key.startswith("label."):
        return (item.get("labels") or {}).get(key[6:])
    if key == "pinned":
        return bool(item["pins"])
    value = item[next(c.field for c in columns if c.name.lower() == key)]
    if kind == "time" and value is not None:
        return time.time() - times.epoch(value)
    return value


def _holds(kind: str, value: Any, op: str, text: str) -> bool:
    if kind == "flag":
        wanted: Any = text.lower() in ("1", "true", "yes")
    elif kind == "size":
        wanted = units.parse_size(text)
    elif kind in ("time", "span", "took"):
        wanted = units.parse_duration(text)
    elif kind == "int":
        try:
            wanted = int(text)
        except ValueError:
            raise UsageError(f"bad number {text!r} in a filter") from None
    else:
        return _text_holds(_spellings(value) if kind == "place" else value, op, text)
    if value is None:
        return False
    return bool({"=": value == wanted, "!=": value != wanted}.get(op, _ordered(op, value, wanted)))


def _ordered(op: str, value: Any, wanted: Any) -> bool:
    return bool(
        value > wanted
        if op == ">"
        else value >= wanted
        if op == ">="
        else value < wanted
        if op == "<"
        else value <= wanted
    )


def _spellings(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [] if value is None else [str(value)]
    return [*found, *map(places.short, found)]


def _text_holds(value: Any, op: str, text: str) -> bool:
    if op not in ("=", "!="):
        raise UsageError(f"{op} does not compare words", "", "use = or !=")
    words = value if isinstance(value, list) else [] if value is None else [str(value)]
    return any(fnmatchcase(str(word), text) for word in words) == (op == "=")


def _rank(value: Any) -> tuple[bool, Any]:
    """Unknown values come last in either kind of order of known ones: never compared with them."""
    if isinstance(value, (list, dict)):
        value = ",".join(map(str, value))
    return value is not None, value if value is not None else 0
