"""Changing one key of a TOML file and nothing else: comments, order and every other line stay as they are.

Only the plain form is edited: a `[section]` heading and `key = value` on a line of its own under it. The result is
parsed and compared; a file that says the key in another way is left alone and named.
"""

from __future__ import annotations

import os
import tomllib

from trims.config_file import read_file
from trims.errors import UsageError
from trims.linux import atomic


def quoted(text: str) -> str:
    """`text` as a TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'


def change(path: str, key: str, value: str | None) -> None:
    """Set `section.key` to `value`, TOML text, or take it out. Raises UsageError, NotPermitted, NoSpace."""
    before = read_file(path)
    section, _, name = key.partition(".")
    if value is None and key not in before:
        return
    try:
        lines = _lines(path)
        text = "".join(edit(lines, section, name, value))
        if not _differs_only(before, text, key, value):
            raise UsageError(f"{path} writes {key} in a way that is not edited here", "", "change it by hand")
        directory = os.path.dirname(path)
        atomic.make_directory(directory, 0o700)
        atomic.replace(path, text.encode(), directory)
    except OSError as error:
        raise atomic.translate(error, f"changing {path}") from None


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read().splitlines(keepends=True)
    except (FileNotFoundError, NotADirectoryError):
        return []


def edit(lines: list[str], section: str, name: str, value: str | None) -> list[str]:
    """The lines with the key set, added at the end of its section, or removed."""
    start = next((at for at, line in enumerate(lines) if line.split("#")[0].strip() == f"[{section}]"), None)
    if start is None:
        gap = ["\n"] if lines and lines[-1].strip() else []
        ended = [*lines[:-1], lines[-1].rstrip("\n") + "\n"] if lines else []
        return lines if value is None else [*ended, *gap, f"[{section}]\n", f"{name} = {value}\n"]
    end = next((at for at in range(start + 1, len(lines)) if lines[at].lstrip().startswith("[")), len(lines))
    at = next((at for at in range(start + 1, end) if lines[at].partition("=")[0].strip() == name), None)
    if at is not None:
        return lines[:at] + ([] if value is None else [f"{name} = {value}\n"]) + lines[at + 1 :]
    if value is None:
        return lines
    while not lines[end - 1].strip():
        end -= 1
    return [*lines[: end - 1], lines[end - 1].rstrip("\n") + "\n", f"{name} = {value}\n", *lines[end:]]


def _differs_only(before: dict[str, str], text: str, key: str, value: str | None) -> bool:
    """Whether the new text says what the old one did, but for the key."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    after = {f"{s}.{k}": v for s, values in tree.items() if isinstance(values, dict) for k, v in values.items()}
    others = {k: str(v).lower() if isinstance(v, bool) else str(v) for k, v in after.items() if k != key}
    kept = {k: v for k, v in before.items() if k != key}
    return (key in after) == (value is not None) and all(others.get(k, v) == v for k, v in kept.items())
