"""How `top` answers keys: pure. `press` gives the next state, and what is to be done to the model under the cursor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trims import places
from trims_cli.output import Column, Item
from trims_cli.processes import COLUMNS as PS

COLUMNS = (
    *(c for c in PS if c.usual),
    Column("COMMAND", "command"), Column("PSS", "pss", "size"), Column("HITS", "hits", "int"),
    Column("LOAD", "load_seconds", "took"), Column("LAST", "used", "time"), Column("PINS", "pins", "int"),
)  # fmt: skip
INTERVALS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0)
PAGE = 10


@dataclass(frozen=True)
class State:
    """What the person has chosen. mode: list, search, confirm, details or help; sort: which column.

    details: the lines of the model that Enter was pressed on.
    """

    sort: int = 0
    reverse: bool = False
    search: str = ""
    cursor: int = 0
    paused: bool = False
    interval: float = 2.0
    mode: str = "list"
    message: str = ""
    details: tuple[str, ...] = ()
    readonly: bool = False
    colour: bool = True
    ascii: bool = False


@dataclass(frozen=True)
class Action:
    """pin, unpin or evict this model, or show its details; or quit."""

    verb: str
    model: str = ""
    place: str = ""
    digest: str = ""


def visible(state: State, rows: Sequence[Item]) -> list[Item]:
    """The rows that the search leaves, in the chosen order; unknown values last."""
    column = COLUMNS[state.sort]
    found = [row for row in rows if not state.search or any(state.search in str(v) for v in _searched(row))]

    def rank(row: Item) -> tuple[Any, ...]:
        value = row[column.field]
        return (value, row["model"]) if value is not None else ("", row["model"])

    known = sorted((row for row in found if row[column.field] is not None), key=rank, reverse=state.reverse)
    return known + [row for row in found if row[column.field] is None]


def _searched(row: Item) -> tuple[Any, ...]:
    where = row["place"], places.short(row["place"])
    return *where, row["model"], row["user"], row["command"], row["job"], row["pid"], row["state"]


def press(state: State, key: str, rows: Sequence[Item]) -> tuple[State, Action | None]:
    """The state after a key, and what to do. `rows` are the visible ones."""
    if state.mode == "search":
        return _searching(state, key), None
    if state.mode in ("help", "details"):
        return replace(state, mode="list", details=()), None
    here = rows[min(state.cursor, len(rows) - 1)] if rows else None
    if state.mode == "confirm":
        sure = key in ("y", "Y") and here is not None
        action = Action("evict", here["model"], here["place"]) if sure and here else None
        return replace(state, mode="list", message="" if sure else "nothing was evicted"), action
    if key in ("q", "ctrl-c"):
        return state, Action("quit")
    if key in ("p", "P", "e"):
        return _changing(state, key, here)
    if key == "enter" and here is not None:
        return replace(state, mode="details"), Action("details", here["model"], here["place"], here["id"])
    return _moving(replace(state, message=""), key, len(rows)), None


def _searching(state: State, key: str) -> State:
    if key == "enter":
        return replace(state, mode="list", cursor=0)
    if key == "escape":
        return replace(state, mode="list", search="", cursor=0)
    if key == "backspace":
        return replace(state, search=state.search[:-1])
    return replace(state, search=state.search + key) if len(key) == 1 and key.isprintable() else state


def _changing(state: State, key: str, here: Item | None) -> tuple[State, Action | None]:
    if state.readonly:
        return replace(state, message="read-only: nothing can be changed from here"), None
    if here is None:
        return replace(state, message="no model is selected"), None
    if key == "e":
        return replace(state, mode="confirm"), None
    return state, Action("pin" if key == "p" else "unpin", here["model"], here["place"])


def _moving(state: State, key: str, count: int) -> State:
    last = max(0, count - 1)
    cursor = min(state.cursor, last)
    steps = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -PAGE, "pagedown": PAGE, "home": -count, "end": count}
    if key in steps:
        return replace(state, cursor=min(last, max(0, cursor + steps[key])))
    if key in ("<", ">"):
        return replace(state, sort=(state.sort + (1 if key == ">" else -1)) % len(COLUMNS))
    if key in ("+", "-"):
        at = min(range(len(INTERVALS)), key=lambda i: abs(INTERVALS[i] - state.interval))
        return replace(state, interval=INTERVALS[min(len(INTERVALS) - 1, max(0, at + (1 if key == "+" else -1)))])
    toggles = {"I": {"reverse": not state.reverse}, "Z": {"paused": not state.paused}}
    modes = {"/": "search", "?": "help", "h": "help"}
    if key in modes:
        return replace(state, mode=modes[key], search="" if key == "/" else state.search)
    if key == "escape":
        return replace(state, search="")
    return replace(state, **toggles.get(key, {}))  # type: ignore[arg-type]
