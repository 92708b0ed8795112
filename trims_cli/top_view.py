"""How `top` looks: pure, from a state and a sample to something rich can draw, of exactly the terminal's size.

A bar a place: pinned, leased, idle, spare, reserved (for no model: buffers, or other processes have it), free. Then
one line of rates, the rows, and a line of what the keys do. Widths are counted here, so that nothing wraps. Where there
are more places than a third of the lines can hold, the last bar is that of all others together.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

from trims import errors, places, units
from trims_cli import output
from trims_cli.output import RIGHT, Item
from trims_cli.top_sample import Sample
from trims_cli.top_state import COLUMNS, State, visible

PARTS = (  # name, style, glyph, glyph of ASCII
    ("pinned", "magenta", "█", "P"), ("leased", "green", "█", "#"), ("idle", "yellow", "▓", "i"),
    ("spare", "blue", "░", "s"), ("reserved", "red", "▒", "o"), ("free", "", "·", "."),
)  # fmt: skip
KEYS = (
    "q quit  ↑↓ move  <> sort  I invert  / search  Enter details  p pin  P unpin  e evict  Z pause  +- interval  ? help"
)
DETAILS = 2  # lines of details that stay whatever the height
HELP = """\
q            quit
↑ ↓ j k      move; PgUp PgDn Home End too
< >          sort by another column; I inverts
/            search models, places, users, commands, jobs; Esc shows all
Enter        who uses the model under the cursor, and what happened to it
p  P         pin the model under the cursor; drop its pins
e            evict it, after a question
Z            pause, and go on
+ -          slower, faster
? h          this help"""


def frame(state: State, sample: Sample, width: int, height: int) -> Group:
    """The whole screen, `height` lines."""
    if width < 20 or height < 5:
        return Group(Text("too small", no_wrap=True))
    head = header(state, sample, width, height)
    if state.mode == "help":
        body = [_cut(Text(line), width) for line in _plain(HELP, state).splitlines()]
    elif state.mode == "details":
        body = [_cut(Text(line), width) for line in _fitting(state.details, height - len(head) - 1)]
    else:
        body = _body(state, sample, width, height - len(head) - 1)
    lines = (head + body)[: height - 1]
    lines += [Text("")] * (height - 1 - len(lines))
    return Group(*lines, _cut(_footer(state), width))


def header(state: State, sample: Sample, width: int, height: int) -> list[Text]:
    """The bars and the rates."""
    if sample.pid is None:
        return [_cut(Text("trims top: no manager is running; waiting for one", "bold"), width), Text("")]
    title = f"trims top  manager {sample.version}, process {sample.pid}  every {state.interval:g}s"
    flags = [word for word, on in (("paused", state.paused), ("read-only", state.readonly)) if on]
    lines = [_cut(Text(title + "".join(f"  [{flag}]" for flag in flags), "bold"), width)]
    lines += [bar(place, width, state) for place in fitting(sample.places, max(2, height // 3))]
    lines.append(_cut(Text(rates(sample)), width))
    if sample.last_eviction is not None:
        lines.append(_cut(Text(last_eviction(sample.last_eviction)), width))
    return [*lines, Text("")]


def last_eviction(item: Item) -> str:
    """The line of what went last, and why."""
    said = f"last gone: {item['name']} {output.cell('time', item['time'])} ago: {item['reason']}"
    return errors.one_line(said)


def _fitting(lines: Sequence[str], room: int) -> Sequence[str]:
    """The first lines, which say what it is, and of the others as many as there is room for, the last ones."""
    return lines if len(lines) <= room else [*lines[:DETAILS], *lines[DETAILS:][-max(1, room - DETAILS) :]]


def fitting(uses: Sequence[Item], room: int) -> Sequence[Item]:
    """The places, at most `room` of them: the last is then the sum of all that have no bar of their own."""
    if len(uses) <= room:
        return uses
    others = uses[room - 1 :]
    fields = ("budget", "used", *(name for name, _, _, _ in PARTS))
    summed = {name: sum(use[name] for use in others) for name in fields}
    return [*uses[: room - 1], {"place": f"{len(others)} others", **summed}]


def bar(place: Item, width: int, state: State) -> Text:
    """One place: its name, the stacked bar, and how much of its budget is used."""
    name = f"{shorten(errors.one_line(places.short(place['place'])), 12):<12} "
    tail = f" {units.format_size(place['used'])}/{units.format_size(place['budget'])}"
    room = max(4, width - len(name) - len(tail) - 2)
    text = Text(name + "[", no_wrap=True)
    for (_, style, glyph, plain), cells in zip(PARTS, split(place, room), strict=True):
        text.append((plain if state.ascii else glyph) * cells, style)
    return _cut(text.append("]" + tail), width)


def split(place: Item, room: int) -> list[int]:
    """How many of `room` cells each part gets: in proportion, at least one where there is anything at all."""
    total = max(1, place["budget"], place["used"])
    cells = [
        min(room, max(1, round(place[name] / total * room))) if place[name] > 0 else 0 for name, _, _, _ in PARTS[:-1]
    ]
    while sum(cells) > room:
        cells[cells.index(max(cells))] -= 1
    return [*cells, room - sum(cells)]


def rates(sample: Sample) -> str:
    """The line of rates; `-` where nothing is known yet."""
    r = sample.rates

    def number(name: str) -> str:
        value = r.get(name)
        return "-" if value is None else f"{value:.1f}" if value < 10 else f"{value:.0f}"

    hit, loaded = r.get("hit_ratio"), r.get("loaded_bytes_per_s")
    return (
        f"attaches {number('attaches_per_s')}/s  hits {'-' if hit is None else f'{hit:.0%}'}  "
        f"loading {'-' if loaded is None else units.format_size(int(loaded)) + '/s'}  "
        f"evictions {number('evictions_per_min')}/min  refused {number('refusals_per_min')}/min"
    )


def _body(state: State, sample: Sample, width: int, height: int) -> list[Text]:
    rows = visible(state, sample.rows)
    cells = [[output.cell(c.kind, row.get(c.field)) for c in COLUMNS] for row in rows]
    heads = [c.name for c in COLUMNS]
    arrow = ("v" if state.reverse else "^") if state.ascii else ("▼" if state.reverse else "▲")
    heads[state.sort] += arrow
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    others = sum(widths[1:]) + 2 * (len(widths) - 1)
    widths[0] = max(10, min(widths[0], width - others))
    cursor = min(state.cursor, max(0, len(rows) - 1))
    first = max(0, cursor - max(1, height - 1) + 1)
    lines = [_cut(Text(_line(heads, widths), "reverse" if state.colour else "bold"), width, fill=True)]
    for at in range(first, min(len(rows), first + height - 1)):
        style = "bold" if at == cursor else _style(rows[at], state)
        mark = ">" if at == cursor else " "
        lines.append(_cut(Text(mark + _line(cells[at], widths), style), width))
    return lines


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    cells = [shorten(cells[0], widths[0]), *cells[1:]]
    columns = zip(cells, widths, COLUMNS, strict=True)
    return "  ".join(text.rjust(w) if c.kind in RIGHT else text.ljust(w) for text, w, c in columns)


def _style(row: Item, state: State) -> str:
    if not state.colour:
        return ""
    return {"loading": "cyan", "doomed": "red"}.get(row["state"], "" if row["pid"] else "dim")


def _footer(state: State) -> Text:
    if state.mode == "search":
        return Text(f"search: {output.clean(state.search)}_", "bold")
    if state.mode in ("help", "details"):
        return Text(f"any key leaves {'this help' if state.mode == 'help' else 'the details'}", "bold")
    if state.mode == "confirm":
        return Text("evict the model under the cursor? y/N", "bold")
    return Text(state.message, "bold") if state.message else Text(_plain(KEYS, state), "dim")


def _plain(text: str, state: State) -> str:
    return text.replace("↑↓", "arrows").replace("↑ ↓", "arrows") if state.ascii else text


def shorten(text: str, width: int) -> str:
    return output.shorten(text, width)


def _cut(text: Text, width: int, fill: bool = False) -> Text:
    text.truncate(width, overflow="crop", pad=fill)
    text.no_wrap = True
    return text
