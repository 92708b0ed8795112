"""The exact forms of the most used commands, answered before typer is imported at all: 20 ms instead of 80.

The parser here knows one table of flags. Whatever it does not know, a cluster such as `-bq`, an abbreviation, `--help`,
a bad value, it leaves to typer, which calls the very same functions; so there is one behaviour, and two ways to it.
"""

from __future__ import annotations

from trims_cli.settings import BY_NAME, Settings

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# verb: (module, function, parameter of the words or "", {flag: (parameter, kind)}); kinds: flag, text, texts, number
_FILTERS = {"--filter": ("filter", "texts"), "--sort": ("sort", "text"), "--limit": ("limit", "number")}
FORMS: dict[str, tuple[str, str, str, dict[str, tuple[str, str]]]] = {
    "ls": ("listing", "ls", "models", {**_FILTERS, "--resident": ("resident", "flag")}),
    "ps": (
        "processes", "ps", "targets",
        {**_FILTERS, "--user": ("user", "text"), "--job": ("job", "text"), "--group-by": ("group_by", "text")},
    ),
    "status": ("status", "status", "", {"--check": ("check", "flag"), "--prometheus": ("prometheus", "flag")}),
    "warm": (
        "resident", "warm", "models",
        {"--to": ("to", "text"), "--ttl": ("ttl", "text"), "--pin": ("pin", "flag"), "--no-wait": ("no_wait", "flag"),
         "--no-evict": ("no_evict", "flag"), "--for": ("flavour", "text"), "-n": ("dry_run", "flag"),
         "--dry-run": ("dry_run", "flag")},
    ),
    "pin": (
        "resident", "pin", "models",
        {"--on": ("place", "text"), "--for": ("duration", "text"), "--reason": ("reason", "text"),
         "--owner": ("owner", "text")},
    ),
    "unpin": (
        "resident", "unpin", "models",
        {"--owner": ("owner", "text"), "--mine": ("mine", "flag"), "--all": ("all", "flag")},
    ),
    "evict": (
        "evicting", "evict", "models",
        {"--on": ("place", "text"), "--to": ("to", "text"), "--all": ("all", "flag"), "--idle": ("idle", "text"),
         "--until-free": ("until_free", "text"), "--force": ("force", "flag"), "--wait": ("wait", "flag"),
         "-n": ("dry_run", "flag"), "--dry-run": ("dry_run", "flag")},
    ),
    "exec": (
        "executing", "execute", "command",
        {"--require": ("require", "texts"), "--warm": ("warm", "texts"), "--to": ("to", "text"),
         "--fallback": ("fallback", "text"), "--report": ("report", "text"),
         "--import-missing": ("import_missing", "flag"), "--native": ("native", "flag"),
         "--print-env": ("print_env", "text")},
    ),
    "wait": (
        "resident", "wait", "models",
        {"--for": ("condition", "text"), "--on": ("place", "text"), "--any": ("any", "flag")},
    ),
}  # fmt: skip
NEED_WORDS = ("warm", "pin")
TAKES_ALL = "exec"
"""The verb whose words are another program's from the first that is no flag."""


def parse(verb: str, words: list[str]) -> tuple[Settings, Callable[[], int]] | None:
    """(settings, the action) of an exact form, or None."""
    form = FORMS.get(verb)
    if form is None:
        return None
    module, function, target, flags = form
    shared: dict[str, Any] = {}
    given: dict[str, Any] = {}
    positional: list[str] = []
    queue = iter(words)
    for word in queue:
        if verb == TAKES_ALL and (word == "--" or not word.startswith("-")):
            positional = [*([] if word == "--" else [word]), *queue]
            break
        if not word.startswith("-") or word == "-":
            positional.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in flags:
            field, kind = flags[name]
            holder = given
        elif name in BY_NAME:
            field, kind = BY_NAME[name].field, "text" if BY_NAME[name].metavar else "flag"
            holder = shared
        else:
            return None
        if kind == "flag":
            if equals:
                return None
            holder[field] = True
            continue
        text = value if equals else next(queue, None)
        if text is None or (kind == "number" and not text.isdecimal()):
            return None
        holder[field] = (*holder.get(field, ()), text) if kind == "texts" else int(text) if kind == "number" else text
    if (positional and not target) or (verb in NEED_WORDS and not positional):
        return None
    if target:
        given[target] = tuple(positional)
    settings = Settings(**shared)
    return settings, lambda: _call(module, function, settings, given)


def _call(module: str, function: str, settings: Settings, given: dict[str, Any]) -> int:
    __import__(f"trims_cli.{module}")
    import sys

    result: int = getattr(sys.modules[f"trims_cli.{module}"], function)(settings, **given)
    return result
