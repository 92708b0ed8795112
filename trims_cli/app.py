"""The command tree, as typer's: which commands there are, in which module each lies, and the flags they share.

A verb is one word or two: "bench paper" is the command `paper` of the group `bench`, the function `bench_paper_`; a
group alone shows its commands. Flags may stand before, between and behind the words.

Only the module of the command asked for is imported; help, completion and the manual import all. typer only parses:
what it gives back is the call to make, which `boundary` makes: every failure takes the same way out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

import typer

from trims.config import guess
from trims.errors import TrimsError, UsageError
from trims.version import __version__
from trims_cli import boundary
from trims_cli.settings import FLAGS, FORMS, Settings, split_verb

COMMANDS = {
    "init": "store", "import": "transfer", "ls": "store", "show": "store", "verify": "store", "rm": "store",
    "share": "store", "gc": "store", "export": "export", "df": "store",
    "start": "manager", "stop": "manager", "restart": "manager", "status": "manager", "logs": "manager",
    "warm": "resident", "pin": "resident", "unpin": "resident", "evict": "resident", "wait": "resident",
    "ps": "resident", "top": "top", "policy": "policy",
    "trace record": "trace", "trace show": "trace",
    "exec": "exec",
    "simulate": "simulate", "bench workload": "bench", "bench paper": "bench", "bench calibrate": "bench",
    "bench validate": "bench",
    "config": "tools", "completion": "tools", "help": "tools",
}  # fmt: skip
_GROUPS = {
    "bench": "Measure what sharing gains on this machine: workloads, the paper's experiments, the simulator's figures.",
    "trace": "Record the requests that a manager serves, and look at what was recorded.",
}
ALIASES = {"list": "ls", "remove": "rm"}
_TAKES_ALL = "exec"  # its words are another program's from the first that is no flag
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_ROOT_HELP = "Share one resident copy of model weights between any number of isolated processes."
_EPILOG = "Every command also takes the shared flags of `trims --help`, such as --json and --store."


class Call:
    """A parsed command line: what to do, under which settings."""

    def __init__(self, settings: Settings, action: Callable[[], int | None]) -> None:
        self.settings, self.action = settings, action


class _Group(typer.core.TyperGroup):
    """Lists commands in the order of the table, not of the alphabet."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)


def subverbs(group: str) -> list[str]:
    """The second words of a group's commands, in the order of the table; [] for what is no group."""
    return [verb.partition(" ")[2] for verb in COMMANDS if verb.startswith(f"{group} ")]


def top_words() -> list[str]:
    """What may stand first on the line: verbs of one word, and groups once each, in the order of the table."""
    return list(dict.fromkeys(verb.partition(" ")[0] for verb in COMMANDS))


def build(verbs: Sequence[str] = tuple(COMMANDS)) -> Any:
    """The click command tree with these commands in it."""
    app = typer.Typer(
        name="trims",
        cls=_Group,
        help=_ROOT_HELP,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_CONTEXT,
    )
    app.callback()(_parsed(_root, hidden=False))
    groups: dict[str, typer.Typer] = {}
    for verb in verbs:
        group, _, word = verb.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(cls=_Group, rich_markup_mode=None, context_settings=_CONTEXT)
            groups[group].callback()(_parsed(_root, hidden=True))
            app.add_typer(groups[group], name=group, help=_GROUPS[group])
        module = import_module(f"trims_cli.cmd_{COMMANDS[verb]}")
        function = getattr(module, f"{verb.replace(' ', '_')}_")
        where = groups[group] if group else app
        context = {**_CONTEXT, "allow_interspersed_args": False} if verb == _TAKES_ALL else _CONTEXT
        where.command(word, epilog=_EPILOG, context_settings=context)(_parsed(function, hidden=True))
    tree: Any = typer.main.get_command(app)
    tree.commands = {word: tree.commands[word] for word in top_words() if word in tree.commands}  # typer's: groups last
    return tree


def _root(settings: Settings) -> None:
    pass


_root.__doc__ = _ROOT_HELP


def _parsed(function: Callable[..., int | None], hidden: bool) -> Callable[..., Call]:
    """`function` for typer: with the shared flags behind its own parameters, giving the call back unmade."""
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "settings"]

    def command(**values: Any) -> Call:
        if values.get("file_format") in FORMS:  # `--format json` of a command whose own --format is that of a file
            values["format"] = values.pop("file_format")
        settings = Settings(**{flag.field: values.pop(flag.field, None) for flag in FLAGS})
        return Call(settings, partial(function, settings, **values))

    shared = [
        inspect.Parameter(
            flag.field,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(
                None if flag.metavar else False,
                *flag.names,
                help=flag.help,
                metavar=flag.metavar or None,
                hidden=hidden,
            ),
            annotation=str | None if flag.metavar else bool,
        )
        for flag in FLAGS
        if not (flag.field == "format" and any(p.name == "file_format" for p in own))
    ]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = function.__doc__
    return command


def run(words: list[str]) -> int:
    """Parse the words, make the call, give the exit code."""
    calls: list[Call] = []

    def parse() -> int:
        outcome = _parse(words)
        if isinstance(outcome, Call):
            calls.append(outcome)
            return 0
        return outcome

    early = {"machine": "--json" in words, "debug": "--debug" in words, "exit_zero": "--exit-zero" in words}
    code = boundary.run(parse, **early)
    if code == UsageError.exit_code and not calls and split_verb(words)[0] == _TAKES_ALL:
        code = 125  # its words are env(1)'s kind, whose own failures must not look like the program's
    for call in calls:
        s = call.settings
        code = boundary.run(call.action, machine=s.machine, debug=s.debug, exit_zero=s.exit_zero)
    return code


def _parse(words: list[str]) -> Call | int:
    verb, rest = split_verb(words)
    if verb is None:
        if "--version" in words:
            typer.echo(f"trims {__version__}")
            return 0
        return _main(build(), words if words else ["--help"], "trims")
    verb = ALIASES.get(verb, verb)
    if subverbs(verb):
        return _parse_second(verb, rest)
    if verb not in COMMANDS:
        raise UsageError(f"no command {verb!r}" + _near(verb), "", "see `trims --help`")
    return _main(build([verb]), [verb, *rest], f"trims {verb}")


def _parse_second(group: str, words: list[str]) -> Call | int:
    """A line whose first word is a group. With no second word the group shows its commands."""
    word, rest = split_verb(words)
    known = subverbs(group)
    if word is None:
        return _main(
            build([f"{group} {second}" for second in known]), [group, *(words or ["--help"])], f"trims {group}"
        )
    if word not in known:
        raise UsageError(f"no command '{group} {word}'" + guess(word, known), "", f"see `trims {group} --help`")
    return _main(build([f"{group} {word}"]), [group, word, *rest], f"trims {group} {word}")


def _near(verb: str) -> str:
    """A guess at what was meant; the second word of a verb of two words alone means that verb."""
    whole = [known for known in COMMANDS if known.endswith(f" {verb}")]
    return f"; did you mean {whole[0]}?" if whole else guess(verb, [*top_words(), *ALIASES])


def _main(command: Any, words: list[str], about: str) -> Call | int:
    """Let typer parse. Its complaints become ours: one line, one hint."""
    usage_error, click_error = _complaints()
    try:
        outcome = command.main(words, prog_name="trims", standalone_mode=False)
    except click_error as error:
        kind = UsageError if isinstance(error, usage_error) else TrimsError
        raise kind(_message(error), "", f"see `{about} --help`") from None
    return outcome if isinstance(outcome, Call) else int(outcome or 0)


def _complaints() -> tuple[type[Exception], type[Exception]]:
    """click's UsageError and ClickException, by way of the one name that every typer we allow exports."""
    found: list[Any] = [cls for cls in typer.BadParameter.__mro__ if cls.__name__ in ("UsageError", "ClickException")]
    return found[0], found[1]


def _message(error: Any) -> str:
    text = " ".join(str(error.format_message()).split()).rstrip(".")
    return text[:1].lower() + text[1:]
