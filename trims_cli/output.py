"""Listings in four forms: a table for people, and tsv, json and jsonl for programs.

One list of columns describes a listing. A table is plain words in columns, so that awk works on it: no cell is empty or
holds a space, nothing is cut or wrapped, except that on a terminal too narrow the NAME column is shortened in its
middle. tsv has the same columns with whole values: bytes, full ids, RFC 3339 times. JSON is written here, without the
json module, which would cost the fast commands 6 ms; the schema's name is `trims.<command>/1`.
"""

from __future__ import annotations

import os
import sys
import time

from trims import errors, places, units
from trims.errors import UsageError
from trims_cli import times

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from trims_cli.settings import Settings

    Item = dict[str, Any]
else:
    Item = dict  # one row of a listing

try:
    from _json import encode_basestring_ascii as _quote  # what the json module itself uses
except ImportError:  # a Python without its C accelerators
    from json.encoder import py_encode_basestring_ascii as _quote


class Column:
    """One column: its heading, the field of the item, the kind of value, and whether it is shown unasked.

    kind: text, id, size, int, time (RFC 3339 in the item, shown as age), span (seconds, as age), took (seconds), mode
    (a number, shown as chmod has it), place (or several; a GPU's shown short, unless more was asked for).
    """

    __slots__ = ("field", "kind", "name", "usual")

    def __init__(self, name: str, field: str, kind: str = "text", usual: bool = True) -> None:
        self.name, self.field, self.kind, self.usual = name, field, kind, usual


RIGHT = ("size", "int", "time", "span", "took")


def emit(
    settings: Settings, schema: str, items: Sequence[Item], columns: tuple[Column, ...], quiet: str | None = "name"
) -> None:
    """Print a listing. quiet: the field that `-q` prints, one a line; None prints nothing then.

    Fields that begin with `_` are there for the table only.
    """
    form = settings.form
    if form in ("json", "jsonl"):
        items = [{key: value for key, value in item.items() if key[0] != "_"} for item in items]
    if form == "json":
        write(document(schema, [to_json(item) for item in items]))
    elif form == "jsonl":
        write("".join(to_json({"schema": f"trims.{schema}/1", "event": "item", **item}) + "\n" for item in items))
    elif settings.quiet:
        write("".join(f"{clean(str(item[quiet]))}\n" for item in items if item[quiet] is not None) if quiet else "")
    else:
        write(listing_text(settings, items, columns))


def listing_text(settings: Settings, items: Sequence[Item], columns: tuple[Column, ...]) -> str:
    """The rows as a table, or as tsv."""
    whole = settings.form == "tsv"
    shown = choose(columns, settings.columns)
    long = {c.kind: whole or (c.kind == "place" and settings.verbose) for c in shown}
    rows = [[cell(c.kind, item.get(c.field), long[c.kind], settings.bytes) for c in shown] for item in items]
    rows = rows if settings.no_header else [[c.name for c in shown], *rows]
    if whole:
        return "".join("\t".join(row) + "\n" for row in rows)
    return table(rows, [c.kind in RIGHT for c in shown], _room(shown, rows))


def document(schema: str, items: list[str]) -> str:
    """One JSON document, one item a line, so that a text tool can still pick lines."""
    inner = "\n" + ",\n".join(items) + "\n" if items else ""
    return f'{{"schema":"trims.{schema}/1","items":[{inner}]}}\n'


def write(text: str) -> None:
    """To standard output; what cannot be encoded is escaped."""
    try:
        sys.stdout.write(text.encode("utf-8", "backslashreplace").decode("utf-8"))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise errors.TrimsError("writing the output failed", error.strerror or "") from None


def write_blocks(schema: str, blocks: list[bytes]) -> None:
    """The `document` whose items, with commas between them, come in blocks of ASCII, to standard output."""
    begin, end = document(schema, ["\0"] if blocks else []).encode().partition(b"\0")[::2]
    try:
        sys.stdout.flush()
        between = begin
        for block in blocks:
            sys.stdout.buffer.write(between + block)
            between = b",\n"
        sys.stdout.buffer.write(end if blocks else begin)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise errors.TrimsError("writing the output failed", error.strerror or "") from None


def note(text: str) -> None:
    """A line for the person, not for the data: to standard error."""
    sys.stderr.write(errors.one_line(text) + "\n")


def telling_forms_apart(columns: tuple[Column, ...], items: Sequence[Item], name: str) -> tuple[Column, ...]:
    """The columns, with VARIANT shown unasked where two forms of one model in one place would else look the same."""
    forms: dict[tuple[Any, Any], Any] = {}
    if all(forms.setdefault((item[name], item["place"]), item["variant"]) == item["variant"] for item in items):
        return columns
    return tuple(Column(c.name, c.field, c.kind) if c.name == "VARIANT" else c for c in columns)


def shown_when_any(columns: tuple[Column, ...], items: Sequence[Item], name: str) -> tuple[Column, ...]:
    """The columns, with `name` shown unasked where any row has a value in it."""
    return tuple(
        Column(c.name, c.field, c.kind) if c.name == name and any(item[c.field] for item in items) else c
        for c in columns
    )


def choose(columns: tuple[Column, ...], wanted: str | None) -> list[Column]:
    """The columns of `--columns`: names with commas; `+` in front adds them to the usual ones."""
    usual = [c for c in columns if c.usual]
    if wanted is None:
        return usual
    by_name = {c.name.lower(): c for c in columns}
    chosen = list(usual) if wanted.startswith("+") else []
    for name in wanted.lstrip("+").split(","):
        column = by_name.get(name.strip().lower())
        if column is None:
            raise UsageError(f"no column {name.strip()!r}", "", "columns are " + ",".join(c.name for c in columns))
        if column not in chosen:
            chosen.append(column)
    return chosen


def cell(kind: str, value: Any, whole: bool = False, plain_bytes: bool = False) -> str:
    """One value as one word. whole: in full, for programs."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if kind == "size":
        return str(value) if whole or plain_bytes else units.format_size(value)
    if kind == "id":
        return str(value) if whole else str(value)[:12]
    if kind == "time":
        return str(value) if whole else units.format_age(time.time() - times.epoch(value))
    if kind == "span":
        return f"{value:.3f}" if whole else units.format_age(value)
    if kind == "took":
        return f"{value:.3f}" if whole else f"{value:.2f}s" if value < 100 else units.format_age(value)
    if kind == "mode":
        return f"{value:03o}"
    if kind == "place" and not whole:
        value = [places.short(place) for place in value] if isinstance(value, list) else places.short(value)
    if isinstance(value, list):
        return clean(",".join(str(part) for part in value))
    if isinstance(value, dict):
        return clean(",".join(f"{key}={part}" for key, part in value.items()))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(str(value))


def clean(text: str) -> str:
    """`text` as one printable word."""
    return errors.one_line(text).replace(" ", "\\x20")


def table(rows: list[list[str]], right: list[bool], room: int | None = None) -> str:
    """Aligned columns, two spaces apart. room: width for the first column when the whole would be too wide."""
    if not rows:
        return ""
    if room is not None:
        rows = [[shorten(row[0], room), *row[1:]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(row, widths, right, strict=True)]
        lines.append("  ".join(cells).rstrip() + "\n")
    return "".join(lines)


def _room(shown: list[Column], rows: list[list[str]]) -> int | None:
    """The width left for a first column NAME or MODEL on a terminal too narrow for all; None: cut nothing."""
    if not rows or shown[0].name not in ("NAME", "MODEL", "TENSOR") or not sys.stdout.isatty():
        return None
    try:
        width = int(os.environ.get("COLUMNS") or os.get_terminal_size(1).columns)
    except (OSError, ValueError):
        return None
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    others = sum(widths[1:]) + 2 * len(widths[1:])
    return max(12, width - others) if widths[0] + others > width else None


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` characters, its middle left out."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def to_json(value: Any) -> str:
    """`value` as compact JSON. Infinity and NaN become null: JSON has no word for them."""
    if value is None:
        return "null"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, str):
        return str(_quote(value))
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return repr(round(value, 6)) if value - value == 0 else "null"
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(str(key))}:{to_json(part)}" for key, part in value.items()) + "}"
    return "[" + ",".join(map(to_json, value)) + "]"


def with_path(item: Item, path: str) -> Item:
    """`item` with a path, and, when that is no UTF-8, its very bytes in base64 beside it: JSON can only say text."""
    try:
        path.encode()
    except UnicodeEncodeError:
        from base64 import b64encode

        return {**item, "path": path, "path_b64": b64encode(os.fsencode(path)).decode()}
    return {**item, "path": path}


def tell(settings: Settings, line: Callable[[], str]) -> None:
    """A remark of a command that did something, on standard output, unless a program reads that or `-q` was given."""
    if settings.form == "table" and not settings.quiet:
        write(line() + "\n")
