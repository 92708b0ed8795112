"""exec --print-env: the variables that redirect, for a shell, a Slurm TaskProlog or a program to set."""

from __future__ import annotations

import os
import sys

from trims.errors import UsageError

FORMS = ("sh", "slurm", "json")


def print_env(form: str, env: dict[str, str]) -> int:
    """Print what `env` has otherwise than our own environment. Raises UsageError."""
    if form not in FORMS:
        raise UsageError(f"bad value {form!r} for --print-env", "", f"use one of {', '.join(FORMS)}")
    changed = {name: value for name, value in env.items() if os.environ.get(name) != value}
    if form == "json":
        from trims_cli.output import to_json

        text = to_json({"schema": "trims.exec-env/1", "env": changed})
        sys.stdout.write(text + "\n")
        return 0
    for name, value in changed.items():
        if form == "slurm" and "\n" in value:
            raise UsageError(f"{name} cannot be given to Slurm", "its value has more than one line")
        sys.stdout.write(f"export {name}={value if form == 'slurm' else _quoted(value)}\n")
    return 0


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"
