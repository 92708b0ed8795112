"""Values typed as `name:key=value,key=value`: the syntax of distributions and of arrivals, and its checks.

A table says which names exist and which parameters each takes, with default and range. A parameter left out takes its
default; a canonical value has every parameter, in the table's order, so two spellings of one value compare equal, and
`spell(*read(text))` reads back to the same floats (numbers are written by `repr`, which is exact).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trims.errors import UsageError

Parameters = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: `default` None means it must be given; a value must lie in (`above`, `most`], or be `least`."""

    key: str
    default: float | None
    above: float = 0.0
    most: float = math.inf
    least: float | None = None

    def check(self, name: str, value: float) -> float:
        """`value` as a float in range; raises UsageError."""
        number = float(value)
        if math.isfinite(number) and (self.above < number <= self.most or number == self.least):
            return number
        limits = f"{self.key} is {'at least' if self.least is not None else 'above'} {plain(self.above)}"
        if self.most < math.inf:
            limits += f" and at most {plain(self.most)}"
        raise UsageError(f"{name} cannot have {self.key}={value:g}", limits)


Table = Mapping[str, tuple[Parameter, ...]]


def plain(value: float) -> str:
    """The shortest text that reads back as exactly `value`, without a needless `.0`."""
    return repr(value).removesuffix(".0")


def spell(name: str, parameters: Parameters) -> str:
    """The canonical text of a name and its parameters."""
    return name if not parameters else f"{name}:" + ",".join(f"{key}={plain(value)}" for key, value in parameters)


def complete(kind: str, name: str, given: Mapping[str, float], table: Table) -> Parameters:
    """Every parameter of `name`, in the table's order; raises UsageError for what the table does not know."""
    if name not in table:
        raise UsageError(f"unknown {kind} {name!r}", "", "known: " + ", ".join(table))
    known = table[name]
    for key in given:
        if key not in {parameter.key for parameter in known}:
            takes = ", ".join(parameter.key for parameter in known) or "no parameters"
            raise UsageError(
                f"{name} has no parameter {key!r}", f"it takes {takes}", f"for example {example(name, table)}"
            )
    values = []
    for parameter in known:
        value = given.get(parameter.key, parameter.default)
        if value is None:
            raise UsageError(f"{name} needs {parameter.key}", "", f"for example {example(name, table)}")
        values.append((parameter.key, parameter.check(name, value)))
    return tuple(values)


def read(kind: str, text: str, table: Table) -> tuple[str, Parameters]:
    """Name and all parameters of `text`; raises UsageError that says what is wrong and what is known."""
    name, _, rest = text.strip().partition(":")
    given: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or key in given:
            why = "given twice" if equals else "a parameter is written key=value"
            raise UsageError(f"cannot read {part!r} in {kind} {text!r}", why)
        try:
            given[key] = float(value)
        except ValueError:
            raise UsageError(f"cannot read {part!r} in {kind} {text!r}", f"{value!r} is no number") from None
    name = name.strip().lower()
    return name, complete(kind, name, given, table)


def example(name: str, table: Table) -> str:
    """`name` with its defaults, 1 where there is none."""
    return spell(name, tuple((p.key, 1.0 if p.default is None else p.default) for p in table[name]))
