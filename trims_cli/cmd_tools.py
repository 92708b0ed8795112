"""config, completion, help: about the command line itself."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from trims.config import BY_KEY, OPTIONS, guess
from trims.errors import TrimsError, UsageError
from trims_cli import output, toml_edit
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

CONFIG = (
    Column("KEY", "key"), Column("VALUE", "value"), Column("ORIGIN", "origin"), Column("RUNNING", "running"),
    Column("ENV", "env", usual=False), Column("DEFAULT", "default", usual=False),
)  # fmt: skip


def config_(
    settings: Settings,
    action: Annotated[str | None, typer.Argument(metavar="[get|set|unset|check|path]", help="What to do.")] = None,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="Like budget.host.")] = None,
    value: Annotated[str | None, typer.Argument(metavar="[VALUE]", help="For set.")] = None,
) -> int:
    """Show the configuration in effect, where each value comes from and what the manager runs with; or change it."""
    if action is None:
        _show(settings)
        return 0
    if action not in ACTIONS:
        near = guess(action, ACTIONS)
        raise UsageError(f"config cannot {action!r}{near}", "", f"use {', '.join(ACTIONS)}")
    run, wanted = ACTIONS[action]
    if (key is not None) + (value is not None) != wanted:
        raise UsageError(f"config {action} takes {('no words', 'a key', 'a key and a value')[wanted]}")
    if key is not None and key not in BY_KEY:
        raise UsageError(f"no key {key!r}" + guess(key, BY_KEY), "", "see `trims config`")
    return run(settings, key or "", value or "")


def _show(settings: Settings) -> None:
    config = settings.config
    running = _running(settings)
    items: list[Item] = []
    for option in OPTIONS:
        text = config.text(option.key)
        shown = {"store.path": config.store, "manager.socket": config.own_socket}.get(option.key, text)
        origin = config.origin(option.key).replace("environment ", "env:")
        items.append({
            "key": option.key, "value": shown, "origin": origin, "running": running.get(option.key),
            "env": option.env, "default": option.default or None, "help": option.help,
        })  # fmt: skip
    output.emit(settings, "config", items, CONFIG, "key")
    for warning in config.warnings:
        output.note(f"trims: {warning}")


def _running(settings: Settings) -> dict[str, Any]:
    """What the manager runs with, of what it tells; {} without one."""
    from trims.client.control import Control

    try:
        with Control(settings.config.sockets, greeting=1.0) as control:
            item = control.request("status", wait=5.0)[0]
    except TrimsError:
        return {}
    host = (item.get("budgets") or {}).get("host") or {}
    found = {
        "store.path": item.get("store"),
        "manager.socket": item.get("socket"),
        **item.get("settings", {}),
        "budget.host": output.cell("size", host["budget"]) if "budget" in host else None,
    }
    return {key: value for key, value in found.items() if value}


def _get(settings: Settings, key: str, _value: str) -> int:
    settings.config[key]  # a bad value is an error here too
    special = {"store.path": settings.config.store, "manager.socket": settings.config.own_socket}
    text = special.get(key, settings.config.text(key))
    if settings.form in ("json", "jsonl"):
        item = {"key": key, "value": text, "origin": settings.config.origin(key)}
        output.emit(settings, "config", [item], CONFIG, "key")
    else:
        output.write(text + "\n")
    return 0


def _set(settings: Settings, key: str, value: str) -> int:
    path, option = _user_file(settings), BY_KEY[key]
    parsed = option.parse(value)
    toml_edit.change(path, key, "true" if parsed is True else "false" if parsed is False else toml_edit.quoted(value))
    settings.override({})
    if settings.config.origin(key) != path:
        output.note(f"trims: {key} is in effect as {settings.config.text(key)!r}, from {settings.config.origin(key)}")
    return 0


def _unset(settings: Settings, key: str, _value: str) -> int:
    toml_edit.change(_user_file(settings), key, None)
    return 0


def _check(settings: Settings, _key: str, _value: str) -> int:
    problems = list(settings.config.warnings)
    for option in OPTIONS:
        try:
            settings.config[option.key]
        except UsageError as error:
            problems.append(str(error))
    if problems:
        for problem in problems[:-1]:
            output.note(f"trims: {problem}")
        raise UsageError(problems[-1])
    output.tell(settings, lambda: "the configuration is fine")
    return 0


def _path(settings: Settings, _key: str, _value: str) -> int:
    output.write(_user_file(settings) + "\n")
    return 0


def _user_file(settings: Settings) -> str:
    from trims.config import config_files

    return config_files(settings.config.environ)[0]


# each action with the number of words it takes
ACTIONS = {"get": (_get, 1), "set": (_set, 2), "unset": (_unset, 1), "check": (_check, 0), "path": (_path, 0)}


def completion_(
    settings: Settings,
    shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish", help="Which shell's script to print.")],
) -> int:
    """Print a completion script. It names models without starting trims."""
    from trims_cli import completion

    if shell not in completion.SHELLS:
        raise UsageError(f"no completion for {shell!r}", "", f"shells are {', '.join(completion.SHELLS)}")
    configured = settings.config.origin("store.path") not in ("default", "environment TRIMS_STORE")
    output.write(completion.script(shell, settings.config.store if configured else None))
    return 0


def help_(
    settings: Settings,
    topic: Annotated[
        list[str] | None, typer.Argument(metavar="[TOPIC]...", help="A command, places, exit-codes, env, filters.")
    ] = None,
) -> int:
    """Open the manual page of a command or topic."""
    from trims_cli import manual

    text = manual.text(" ".join(topic) if topic else None)
    if os.isatty(1) and not settings.no_input:
        manual.page(text)
    else:
        output.write(text)
    return 0
