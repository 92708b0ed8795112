"""Reading a configuration file, flat: `section.key` and text. tomllib is imported only for what is not plain."""

from __future__ import annotations

import os

from trims.errors import UsageError


def read_file(path: str) -> dict[str, str]:
    """Flat `section.key` → text of a TOML file; {} when there is none. Raises UsageError when it is damaged."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"cannot read {path}", os.strerror(error.errno or 0)) from None
    plain = read_plain(data)
    if plain is not None:
        return plain
    import tomllib

    try:
        tree = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML", str(error), "see trims-config in `trims help config`") from None
    flat: dict[str, str] = {}
    for section, values in tree.items():
        for key, value in values.items() if isinstance(values, dict) else [("", values)]:
            name = f"{section}.{key}" if key else section
            flat[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def read_plain(data: bytes) -> dict[str, str] | None:
    """`read_file` for the usual simple file: sections, and on a line of its own each, keys with plain strings, whole
    numbers or booleans. None for anything else, which tomllib reads: importing that costs the fast commands 12 ms.
    """
    flat: dict[str, str] = {}
    sections: set[str] = set()
    section = ""
    for line in data.decode("ascii", "replace").replace("\r\n", "\n").split("\n"):
        line = line.strip(" \t")
        if not line or (line.startswith("#") and line.isprintable()):
            continue
        if line.startswith("[") and line.endswith("]") and _is_bare(line[1:-1]) and line not in sections:
            sections.add(line)
            section = line[1:-1]
            continue
        name, equals, value = (part.strip(" \t") for part in line.partition("="))
        key = f"{section}.{name}" if section else name
        if not equals or not _is_bare(name) or key in flat:
            return None
        if len(value) > 1 and value[0] == value[-1] == '"' and value[1:-1].isprintable() and value.isascii():
            value = value[1:-1]
            if '"' in value or "\\" in value:
                return None
        elif value not in ("true", "false") and not (value.isdecimal() and (value[0] != "0" or value == "0")):
            return None
        flat[key] = value
    return flat


def _is_bare(word: str) -> bool:
    return bool(word) and word.isascii() and word.replace("_", "a").replace("-", "a").isalnum()
