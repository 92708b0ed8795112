"""The manual: pages made of the command tree, the tables of errors, configuration and flags, and hand-written prose.

`trims help` shows these very pages as text; scripts/man writes them as man/man1/*.1. So help, completion and manual
cannot disagree with the commands. The prose of a command is trims_cli/prose/COMMAND.txt. Where a verb is two words, a
hyphen joins them, here and in the name of the page.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files

from trims.config import OPTIONS, guess
from trims.errors import TrimsError, UsageError, all_errors
from trims_cli import app, tree
from trims_cli.pages import Definitions, Literal, Page, join, parse_prose, to_text
from trims_cli.settings import FLAGS

TOPICS = {"places": "PLACES", "exit-codes": "EXIT STATUS", "env": "ENVIRONMENT", "filters": "FILTERS"}
_SIGNALS = [("128+N", "Ended by signal N: 130 is Ctrl-C, 141 a closed pipe, 143 a polite request to end.")]
_EXEC = [
    ("125", "Of `trims exec`: the program was not started, or what had to be redirected was not."),
    ("126", "Of `trims exec`: the program is there and cannot be run."),
    ("127", "Of `trims exec`: there is no such program."),
]
_STATUS = [("3", "Of `trims status`: stopped."), ("4", "Of `trims status`: unknown.")]


def prose(name: str) -> str:
    """The hand-written part of a page; "" when there is none."""
    path = files("trims_cli") / "prose" / f"{name.replace(' ', '-')}.txt"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def all_pages() -> list[Page]:
    """trims(1) and one page a command."""
    commands = tree.commands()
    return [root_page(commands), *(command_page(command) for command in commands)]


def root_page(commands: list[tree.Command]) -> Page:
    page = Page("trims", 1, "share one resident copy of model weights")
    page.add("NAME", "trims - share one resident copy of model weights between processes")
    page.add("SYNOPSIS", "`trims` [FLAGS] COMMAND [ARGUMENTS]")
    sections = parse_prose(prose("trims"))
    for title, blocks in sections:
        if title == "DESCRIPTION":
            page.add(title, *blocks)
    page.add("COMMANDS", [(command.name, command.help) for command in commands])
    page.add("SHARED FLAGS", "Every command takes these, and they may stand before or after it.", shared_flags())
    for title, blocks in sections:
        if title not in ("DESCRIPTION", "FILES", "SEE ALSO"):
            page.add(title, *blocks)
    page.add("EXIT STATUS", "The same for every command; an unknown number means failure.", exit_codes())
    page.add("ENVIRONMENT", *environment())
    for title, blocks in sections:
        if title in ("FILES", "SEE ALSO"):
            page.add(title, *blocks)
    others = join(f"`trims-{command.page}`(1)," for command in commands)
    page.add("SEE ALSO", f"{others} `trims-store`(5), `trims-protocol`(7)")
    return page


def command_page(command: tree.Command) -> Page:
    """One command's page: what the tree knows, then what was written."""
    page = Page(f"trims-{command.page}", 1, command.help)
    page.add("NAME", f"trims-{command.page} - {command.help[:1].lower() + command.help[1:].rstrip('.')}")
    words = [p.synopsis for p in command.options] + [p.synopsis for p in command.arguments]
    words = ["COMMAND", "[ARGUMENTS]"] if command.seconds else words
    page.add("SYNOPSIS", f"`trims {command.name}` {join(words)}".strip())
    sections = parse_prose(prose(command.name))
    page.add("DESCRIPTION", command.help)
    for title, blocks in sections:
        if title == "DESCRIPTION":
            page.add(title, *blocks)
    if command.seconds:
        page.add("COMMANDS", [(c.name, c.help) for c in tree.commands() if c.name.startswith(f"{command.name} ")])
    arguments = [(p.metavar, p.help) for p in command.arguments if p.help]
    if arguments:
        page.add("ARGUMENTS", arguments)
    if command.options:
        page.add("OPTIONS", [(_spelling(p), p.help + _default(p)) for p in command.options])
    page.add(
        "SHARED FLAGS",
        "`trims`(1) explains the flags of every command: " + join(f"`{f.names[0]}`" for f in FLAGS) + ".",
    )
    for title, blocks in sections:
        if title != "DESCRIPTION":
            page.add(title, *blocks)
    page.add("EXIT STATUS", "0 when done, or already so; `trims`(1) lists the others.")
    others = [f"`trims-{command.page}-{word}`(1)," for word in command.seconds]
    page.add("SEE ALSO", join([*others, "`trims`(1)"]))
    return page


def _spelling(parameter: tree.Parameter) -> str:
    names = ", ".join(sorted(parameter.names, key=len))
    return names if parameter.switch else f"{names} {parameter.metavar}"


def _default(parameter: tree.Parameter) -> str:
    plain = isinstance(parameter.default, (str, int)) and not isinstance(parameter.default, bool)
    return f" The default is {parameter.default}." if plain and parameter.default != "" else ""


def shared_flags() -> Definitions:
    rows = [(", ".join(sorted(f.names, key=len)) + (f" {f.metavar}" if f.metavar else ""), f.help) for f in FLAGS]
    return [*rows, ("-h, --help", "Show help and exit."), ("--version", "Print the version and exit.")]


def exit_codes() -> Definitions:
    """From the classes of errors: the number, the words of the JSON form, and what they mean."""
    rows: dict[int, list[str]] = {0: ["Done, or already so."]}
    for cls in all_errors():
        if cls.__module__ != "trims.errors":
            continue
        text = " ".join((cls.__doc__ or "").split(". ")[0].split()).rstrip(".")
        if cls is TrimsError:
            text = "Unexpected failure"
        rows.setdefault(cls.exit_code, []).append(f"`{cls.code}`: {text}.")
    table = [(str(number), join(texts)) for number, texts in sorted(rows.items())]
    return [*table, *_EXEC, *_SIGNALS, *_STATUS]


def environment() -> list[Definitions | str]:
    rows = [(o.env, f"`{o.key}`: {o.help}." + (f" The default is {o.default}." if o.default else "")) for o in OPTIONS]
    others = [
        ("TRIMS_CONFIG", "The user's configuration file."),
        ("TRIMS_DISABLE", "`1`: programs that `trims exec` starts are left as they are."),
        ("COLUMNS", "The width of a terminal."),
        ("NO_COLOR", "When set, no colour is used."),
        ("PAGER", "What `trims help` shows pages with."),
        ("XDG_DATA_HOME, XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_RUNTIME_DIR", "Where files lie, see FILES."),
        ("SLURM_JOB_ID, SLURM_ARRAY_JOB_ID, SLURM_ARRAY_TASK_ID", "The job that `trims ps` shows for a client."),
    ]
    first = "First wins: flag, environment, the user's file, the system's file, default."
    return [first, rows + others]


def text(topic: str | None) -> str:
    """The text of a page or topic. Raises UsageError for an unknown one."""
    if topic is None:
        return to_text(root_page(tree.commands()))
    if topic in TOPICS:
        page = root_page(tree.commands())
        only = Page(topic, 1, topic)
        only.sections = [section for section in page.sections if section[0] == TOPICS[topic]]
        return to_text(only)
    name = app.ALIASES.get(topic, topic)
    known = [*app.top_words(), *app.COMMANDS, *TOPICS]
    for command in tree.commands() if name in known else ():
        if command.name == name:
            return to_text(command_page(command))
    raise UsageError(f"no help for {topic!r}" + guess(topic, known), "", "topics are commands, " + ", ".join(TOPICS))


def page(content: str) -> None:
    """Show text through the pager; as it is where that cannot be started."""
    import shlex
    import subprocess

    command = shlex.split(os.environ.get("PAGER") or "less") or ["less"]
    try:
        subprocess.run(command, input=content.encode(), env={**os.environ, "LESS": os.environ.get("LESS", "FR")})
    except OSError:
        sys.stdout.write(content)


__all__ = ["Literal", "all_pages", "command_page", "page", "root_page", "text"]
