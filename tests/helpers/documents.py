"""Pages whose programs run as printed.

In a page, a block fenced as ```python file=NAME is saved as NAME, and one as ```console run is typed at a shell: a line
that begins with `$ ` is a command, what follows is what it prints, errors included. In that, `...` stands for anything,
a line of `...` for any lines, and figures (but exit codes), digests and the widths of columns may differ.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

_FENCE = re.compile(r"^```(\w+) (file=(?P<file>\S+)|(?P<run>run))\n(?P<text>.*?)^```$", re.M | re.S)
_FIGURE = re.compile(r"\b[0-9a-f]{12}\b|(?<!code )(?<![\d.])\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?(?:%|x|[KMGT]?i?B|[mu]?s)?")


@dataclass
class Command:
    """One line of a console, and the lines it is said to print."""

    line: str
    expected: list[str] = field(default_factory=list)


@dataclass
class Page:
    """steps: (name of a file, its text), or a command, in the order of the page."""

    steps: list[tuple[str, str] | Command]

    @property
    def commands(self) -> list[Command]:
        return [step for step in self.steps if isinstance(step, Command)]

    def script(self, mark: str) -> str:
        """One shell script of the page; before what each command prints it prints a line with `mark`."""
        lines = []
        for step in self.steps:
            if isinstance(step, Command):
                lines.append(f"echo {shlex.quote(mark)}\n{step.line}")
            else:
                lines.append(f"printf %s {shlex.quote(step[1])} >{shlex.quote(step[0])}")
        return "\n".join(lines) + "\n"


def parse(text: str) -> Page:
    steps: list[tuple[str, str] | Command] = []
    for block in _FENCE.finditer(text):
        if block["file"]:
            steps.append((block["file"], block["text"]))
        else:
            steps += _console(block["text"])
    return Page(steps)


def _console(text: str) -> list[Command]:
    commands: list[Command] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            commands.append(Command(line[2:]))
        elif line.strip():
            commands[-1].expected.append(line)
    return commands


def differs(expected: list[str], printed: list[str]) -> str:
    """What is wrong with the lines that a command printed, or ""."""
    pattern = "".join("(?:.*\n)*?" if line.strip() == "..." else _pattern(line) + "\n" for line in expected)
    text = "".join(_plain(line) + "\n" for line in printed if line.strip())
    if re.fullmatch(pattern, text):
        return ""
    return "it should print\n" + "\n".join(expected) + "\nand printed\n" + "\n".join(printed)


def _pattern(line: str) -> str:
    return ".*?".join(re.escape(part) for part in _plain(line).split("..."))


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", _FIGURE.sub("#", line)).strip()
