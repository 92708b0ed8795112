"""The command that starts a program with its model loads redirected."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli import executing
from trims_cli.settings import Settings

Names = Annotated[
    list[str] | None, typer.Option("--require", metavar="MODEL", help="It must be redirected; repeatable.")
]


def exec_(
    settings: Settings,
    command: Annotated[list[str] | None, typer.Argument(metavar="[--] COMMAND...", help="The program.")] = None,
    require: Names = None,
    warm: Annotated[
        list[str] | None, typer.Option("--warm", metavar="MODEL", help="Have it resident before; repeatable.")
    ] = None,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="auto, host (the manager's) or disk.")] = "auto",
    fallback: Annotated[
        str | None,
        typer.Option("--fallback", metavar="native|fail", help="What becomes of loads that cannot be redirected."),
    ] = None,
    report: Annotated[
        str | None, typer.Option("--report", metavar="FILE", help="Append a line of JSON for each load and process.")
    ] = None,
    import_missing: Annotated[
        bool, typer.Option("--import-missing", help="Import files that the store does not know.")
    ] = False,
    native: Annotated[bool, typer.Option("--native", help="Redirect nothing, measure native loads.")] = False,
    print_env: Annotated[
        str | None, typer.Option("--print-env", metavar="sh|slurm|json", help="Print the environment, run nothing.")
    ] = None,
) -> int:
    """Run an unmodified program with shared weights where it loads models that the store knows."""
    return executing.execute(
        settings, tuple(command or ()), tuple(require or ()), tuple(warm or ()), to, fallback, report, import_missing,
        native, print_env,
    )  # fmt: skip
