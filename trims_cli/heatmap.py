"""The map of cells in a terminal: a coloured square a cell, its number always in it, so that no colour is ever needed.

A line after a row's squares ends the sweet spot there: to its left every batch is no slower than natively. Colours are
those of the pictures; what the terminal has (24 bits, 256, 16 or none) and NO_COLOR are for rich to see to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.style import Style
from rich.text import Text

from trims.workload import palette
from trims.workload.summary import Cell, sweet_spot

_WIDTH = 6


def lines(cells: Sequence[Cell], value: Callable[[Cell], float | None], title: str, unicode: bool = True) -> list[Text]:
    """The map, most clients on top. A cell that is missing, or has no such figure, is a dash."""
    shares, clients = sorted({c.share for c in cells}), sorted({c.clients for c in cells}, reverse=True)
    values = {(c.share, c.clients): found for c in cells if (found := value(c)) is not None}
    most, spot = palette.reach(values.values()), sweet_spot(cells)
    label = max(len(str(count)) for count in (*clients, 0)) + 8
    made = [Text(title, style="bold")]
    for row, count in enumerate(clients):
        line = Text(("clients " if row == 0 else "").ljust(8) + str(count).rjust(label - 8) + " ")
        for share in shares:
            line.append(_square(values.get((share, count)), most))
            line.append(("▏" if unicode else "|") if spot.get(count) == share else " ")
        line.rstrip()
        made.append(line)
    made.append(Text(" " * (label + 1) + " ".join(f"{share:.0%}".center(_WIDTH) for share in shares).rstrip()))
    made.append(Text(" " * (label + 1) + "share of the models in play"))
    return made


def show(made: Sequence[Text], colour: str) -> None:
    """Print the lines on standard output. colour: auto, always or never."""
    console = Console(
        file=sys.stdout,
        force_terminal=True if colour == "always" else None,
        no_color=True if colour == "never" else None,
        highlight=False,
        soft_wrap=True,
    )
    for line in made:
        console.print(line)


def _square(ratio: float | None, most: float) -> Text:
    if ratio is None:
        return Text("-".center(_WIDTH))
    rgb = palette.colour(palette.position(ratio, most))
    red, green, blue = palette.ink(rgb)
    style = Style(color=f"rgb({red},{green},{blue})", bgcolor="rgb({},{},{})".format(*rgb))
    return Text(number(ratio).center(_WIDTH), style=style)


def number(ratio: float) -> str:
    """A ratio in at most five characters: 0.43x, 1.8x, 24x, 1850x."""
    return f"{ratio:.2f}x" if ratio < 1 else f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"
