"""The flags that every command takes, once: one table for the fast parser, the typer tree, completion and the manual.

`Settings` holds what was given and answers with what is in effect, which the configuration decides where no flag was
given. Flags may stand before or after the verb: `split_verb` moves those before it behind it.
"""

from __future__ import annotations

import os

from trims import config as configuration
from trims import units
from trims.errors import UsageError

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from typing import Any

    from trims.config import Config
    from trims_cli.output import Column


class Flag:
    """One flag: the field it sets, its spellings, the word for its value ("" when it takes none), its help."""

    __slots__ = ("field", "help", "metavar", "names")

    def __init__(self, field: str, names: tuple[str, ...], metavar: str, help: str) -> None:
        self.field, self.names, self.metavar, self.help = field, names, metavar, help


FLAGS = (
    Flag("store", ("--store",), "DIR", "The store to use."),
    Flag("socket", ("--socket",), "PATH", "The manager's socket."),
    Flag("json", ("--json",), "", "Print one JSON document; errors too, as the last line of stderr."),
    Flag("format", ("--format",), "FORM", "Form of the output: table, tsv, json or jsonl."),
    Flag("columns", ("--columns",), "LIST", "Columns to show, with commas; +LIST adds to the usual ones."),
    Flag("no_header", ("--no-header",), "", "Leave the line of column names out."),
    Flag("bytes", ("--bytes", "-b"), "", "Print sizes as plain bytes."),
    Flag("quiet", ("--quiet", "-q"), "", "Print names only (ps: process numbers), or nothing."),
    Flag("verbose", ("--verbose", "-v"), "", "Say more."),
    Flag("color", ("--color",), "WHEN", "Colour: auto, always or never."),
    Flag("no_input", ("--no-input",), "", "Never ask; fail naming the flag that answers."),
    Flag("yes", ("--yes", "-y"), "", "Answer yes to every question."),
    Flag("timeout", ("--timeout",), "TIME", "Longest wait, as 90s, 30m or forever."),
    Flag("lock_timeout", ("--lock-timeout",), "TIME", "Longest wait for a lock of the store."),
    Flag("exit_zero", ("--exit-zero",), "", "Exit with 0 whatever happens, for job prologues."),
    Flag("debug", ("--debug",), "", "Print the traceback of an unexpected failure."),
)
BY_NAME = {name: flag for flag in FLAGS for name in flag.names}
FORMS = ("table", "tsv", "json", "jsonl")


class Settings:
    """What the shared flags say. Fields are those of FLAGS; None or False when not given."""

    __slots__ = (*(flag.field for flag in FLAGS), "_config", "_overrides")

    if TYPE_CHECKING:
        store: str | None
        socket: str | None
        format: str | None
        columns: str | None
        color: str | None
        timeout: str | None
        lock_timeout: str | None
        json: bool
        no_header: bool
        bytes: bool
        quiet: bool
        verbose: bool
        no_input: bool
        yes: bool
        exit_zero: bool
        debug: bool

    def __init__(self, **given: Any) -> None:
        for flag in FLAGS:
            setattr(self, flag.field, given.get(flag.field) or (None if flag.metavar else False))
        self._config: Config | None = None
        self._overrides: dict[str, str | None] = {}

    def override(self, flags: dict[str, str | None]) -> None:
        """More configuration keys given as flags, those of one command only."""
        self._overrides.update(flags)
        self._config = None

    @property
    def config(self) -> Config:
        if self._config is None:
            given = {
                "store.path": self.store,
                "manager.socket": self.socket,
                "store.lock_timeout": self.lock_timeout,
                "ui.color": self.color,
                "ui.no_input": "true" if self.no_input else None,
            }
            self._config = configuration.load(flags={**given, **self._overrides})
        return self._config

    @property
    def form(self) -> str:
        """The form of the output: `--json`, then `--format`, then the configuration."""
        if self.json:
            return "json"
        if self.format is None:
            return str(self.config["ui.format"])
        if self.format not in FORMS:
            raise UsageError(f"bad format {self.format!r}", "", f"use one of {', '.join(FORMS)}")
        return self.format

    @property
    def machine(self) -> bool:
        """Whether the output is JSON, so that errors are too."""
        given = self.format or os.environ.get("TRIMS_FORMAT")
        return self.json or given in ("json", "jsonl")

    @property
    def lock_seconds(self) -> float:
        return float(self.config["store.lock_timeout"])

    @property
    def may_ask(self) -> bool:
        """Whether a question may be put: to a person, at a terminal, who did not forbid it."""
        import sys

        return not self.config["ui.no_input"] and sys.stdin.isatty() and sys.stderr.isatty()

    def sort(self, given: str | None, columns: tuple[Column, ...]) -> str | None:
        """The order of a listing: as given, or as TRIMS_SORT says where that is one of the listing's columns."""
        usual = self.config.environ.get("TRIMS_SORT") if given is None else None
        known = usual and any(c.name.lower() == usual.partition(":")[0].lower() for c in columns)
        return usual if known else given

    def seconds(self, default: float) -> float:
        """The `--timeout` in seconds."""
        return default if self.timeout is None else units.parse_duration(self.timeout)


def split_verb(words: list[str]) -> tuple[str | None, list[str]]:
    """(verb, the other words in order) with shared flags that came first moved behind the verb; None without a verb."""
    at = 0
    while at < len(words):
        word = words[at]
        flag = BY_NAME.get(word.partition("=")[0])
        if flag is None:
            break
        at += 2 if flag.metavar and "=" not in word else 1
    if at >= len(words) or words[at].startswith("-"):
        return None, words
    return words[at], words[:at] + words[at + 1 :]
