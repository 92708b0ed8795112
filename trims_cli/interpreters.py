"""Whether a Python that a command line starts will hear of PYTHONPATH: `python -I` and its like do not.

Only what the line, or the first line of the script it names, says is known; whoever starts such a Python later is not
seen. Programs that are not Python are none of our business.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # what typing calls it: importing typing would cost the fast commands 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence

_DEAF = {"I": "ignores the environment", "E": "ignores the environment", "S": "runs no sitecustomize"}
_LAST, _VALUED = "cm", "WX"
_SHEBANG = 256  # bytes of a first line that the kernel looks at


def obstacle(command: Sequence[str], env: dict[str, str]) -> str:
    """Why the program cannot be redirected, or ""."""
    from trims_cli.executing import candidates

    if not command:
        return ""
    if _is_python(command[0]) or os.path.basename(command[0]) == "env":
        return _deaf(command)
    path = next((p for p in candidates(command[0], env) if os.path.isfile(p) and os.access(p, os.X_OK)), None)
    line = _first_line(path) if path is not None else []
    return _deaf(line) and f"{path} begins with {' '.join(line)}, which {_deaf(line).split(' ', 2)[2]}"


def _deaf(words: Sequence[str]) -> str:
    """`PYTHON -I ignores the environment`, or "" for a Python that listens, and for what is none."""
    if words and os.path.basename(words[0]) == "env":
        words = [word for word in words[1:] if word != "-S" and "=" not in word]
    if not words or not _is_python(words[0]):
        return ""
    rest = iter(words[1:])
    for word in rest:
        if not word.startswith("-") or word in ("-", "--"):
            return ""
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(rest, None)
            continue
        for n, letter in enumerate(word[1:], 2):
            if letter in _DEAF:
                return f"{os.path.basename(words[0])} -{letter} {_DEAF[letter]}"
            if letter in _LAST:
                return ""
            if letter in _VALUED:
                if n == len(word):
                    next(rest, None)
                break
    return ""


def _is_python(word: str) -> bool:
    return os.path.basename(word).startswith(("python", "pypy"))


def _first_line(path: str) -> list[str]:
    """The words of a script's first line; the kernel gives all but the first as one argument."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return []
    try:
        data = os.pread(fd, _SHEBANG, 0)
    except OSError:
        return []
    finally:
        os.close(fd)
    if not data.startswith(b"#!"):
        return []
    return os.fsdecode(data[2:].partition(b"\n")[0]).split()
