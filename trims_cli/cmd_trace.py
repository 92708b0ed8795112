"""trace record, trace show: a manager's log of requests into a file, and what is in one."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli.settings import Settings


def trace_record_(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is standard output.")],
    duration: Annotated[str | None, typer.Option("--for", metavar="TIME", help="End by itself after it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
) -> int:
    """Record the requests that the manager serves, until interrupted."""
    from trims_cli import recording

    return recording.record(settings, file, duration, force)


def trace_show_(
    settings: Settings,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A recorded trace; - is standard input.")],
) -> int:
    """Sum a recorded trace up: requests, models, clients, rate, popularity, hit rate."""
    from trims_cli import recording

    return recording.show(settings, file)
