"""The command tree as plain data, for whoever writes about it: completion, the manual, the tests."""

from __future__ import annotations

from typing import Any

from trims_cli import app
from trims_cli.settings import FLAGS

_SHARED = {flag.field for flag in FLAGS}


class Parameter:
    """One option or argument. names: () for an argument; metavar: the word for its value, "" for a switch."""

    def __init__(self, raw: Any) -> None:
        self.argument = raw.param_type_name == "argument"
        self.names: tuple[str, ...] = () if self.argument else (*raw.opts, *raw.secondary_opts)
        self.switch = not self.argument and raw.is_flag
        self.metavar: str = "" if self.switch else raw.metavar or (raw.name or "").upper()
        self.help: str = " ".join((getattr(raw, "help", None) or "").split())
        self.hidden = bool(getattr(raw, "hidden", False))
        self.required = bool(raw.required)
        self.repeats = bool(getattr(raw, "multiple", False)) or raw.nargs == -1
        self.default = raw.default

    @property
    def synopsis(self) -> str:
        """How it stands in a synopsis line."""
        if self.argument:
            return self.metavar
        long = max(self.names, key=len)
        word = long if self.switch else f"{long} {self.metavar}"
        return word if self.required else f"[{word}]" + ("..." if self.repeats else "")


class Command:
    """One command with its own parameters; the shared flags are `FLAGS`. The name of a nested one is two words.

    seconds: of a group, the second words of its commands; [] for a command that does something itself.
    """

    def __init__(self, name: str, raw: Any) -> None:
        self.name = name
        self.page = name.replace(" ", "-")
        self.seconds = app.subverbs(name)
        self.help: str = " ".join((raw.help or "").split())
        self.parameters = [Parameter(p) for p in raw.params if p.name not in _SHARED]

    @property
    def options(self) -> list[Parameter]:
        return [p for p in self.parameters if not p.argument and not p.hidden and "--help" not in p.names]

    @property
    def arguments(self) -> list[Parameter]:
        return [p for p in self.parameters if p.argument and not p.hidden]

    @property
    def takes_models(self) -> bool:
        return any("MODEL" in p.metavar for p in self.arguments)


def commands() -> list[Command]:
    """Every command, in the order of the table; a group comes before its own."""
    found = []
    for name, raw in app.build().commands.items():
        found.append(Command(name, raw))
        found += [Command(f"{name} {word}", raw.commands[word]) for word in app.subverbs(name)]
    return found
