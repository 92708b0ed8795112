"""Sizes and durations as people write them, and back.

20GiB and 20G are binary, 20GB is decimal, 80% is of a total. 90s, 30m, 2h, 7d are durations in seconds.
"""

from __future__ import annotations

from trims.errors import UsageError

_BINARY = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_SUFFIXES = {**_BINARY, **{f"{k}IB": v for k, v in _BINARY.items() if k not in ("", "B")}, **_DECIMAL}
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}

FOREVER = float("inf")


def _split(text: str) -> tuple[str, str]:
    text = text.strip()
    at = len(text)
    while at and not (text[at - 1].isdigit() or text[at - 1] == "."):
        at -= 1
    return text[:at], text[at:].strip()


def _number(text: str, kind: str, example: str) -> float:
    number = _split(text)[0]
    digits = number.replace(".", "", 1)
    if not digits or not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise UsageError(f"bad {kind} {text!r}", "", f"write it like {example}")
    return float(number) if "." in number else int(number)


def parse_size(text: str, total: int | None = None) -> int:
    """Bytes of `text` (`512`, `20GiB`, `20GB`, `80%`). A percentage needs `total`, in bytes. Raises UsageError."""
    value, suffix = _number(text, "size", "20GiB, 20GB or 80%"), _split(text)[1].upper()
    if suffix == "%":
        if total is None or value > 100:
            raise UsageError(
                f"bad size {text!r}", "a percentage has no meaning here or is over 100", "write it like 20GiB"
            )
        return int(total * value / 100)
    if suffix not in _SUFFIXES:
        raise UsageError(f"bad size {text!r}", f"unknown unit {suffix!r}", "write it like 20GiB, 20GB or 80%")
    return int(value * _SUFFIXES[suffix])


def format_size(nbytes: int) -> str:
    """`nbytes` for people: `512B`, `97.8MiB`. No spaces, so that columns stay columns."""
    if nbytes < 1024:
        return f"{nbytes}B"
    value, units = float(nbytes), ["KiB", "MiB", "GiB", "TiB", "PiB"]
    unit = ""
    while units and (not unit or value >= 999.95):
        value, unit = value / 1024, units.pop(0)
    return f"{value:.1f}{unit}"


def parse_duration(text: str) -> float:
    """Seconds of `text` (`90s`, `30m`, `2h`, `7d`, `forever`). Raises UsageError."""
    if text.strip().lower() in ("forever", "never", "inf"):
        return FOREVER
    value, suffix = _number(text, "duration", "90s, 30m, 7d or forever"), _split(text)[1].lower()
    if suffix not in _SECONDS:
        raise UsageError(f"bad duration {text!r}", f"unknown unit {suffix!r}", "write it like 90s, 30m, 7d or forever")
    return value * _SECONDS[suffix]


def format_age(seconds: float) -> str:
    """A short age: `4s`, `12m`, `3h`, `9d`; `forever` for infinity."""
    if seconds == FOREVER:
        return "forever"
    seconds = max(0.0, seconds)
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "m"), (86400, 3600, "h")):
        if seconds < limit:
            return f"{int(seconds / unit)}{name}"
    return f"{int(seconds / 86400)}d"
