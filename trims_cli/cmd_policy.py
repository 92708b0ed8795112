"""policy: which idle residency goes first when room is needed."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli import policy
from trims_cli.settings import Settings


def policy_(
    settings: Settings,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Change to this one.")] = None,
) -> int:
    """Show by which policy the manager evicts and which there are; or change it, at once."""
    return policy.show(settings) if name is None else policy.change(settings, name)
