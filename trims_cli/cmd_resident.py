"""The commands about what is resident: warm, pin, unpin, evict, wait, ps."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli import evicting, processes, resident
from trims_cli.options import DryRun, Filter, Limit, Models, On, SomeModels, Sort
from trims_cli.settings import Settings

Flavour = Annotated[str, typer.Option("--for", metavar="USE", help="What for: auto, raw, onnxruntime or torch.")]


def warm_(
    settings: Settings,
    models: SomeModels,
    to: Annotated[str, typer.Option("--to", metavar="PLACE", help="Where to: host, gpu, gpu:N or gpu:UUID.")] = "host",
    ttl: Annotated[
        str | None, typer.Option("--ttl", metavar="TIME", help="Keep it this long after its last use.")
    ] = None,
    pin: Annotated[bool, typer.Option("--pin", help="Pin it, too.")] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Come back at once; the load goes on.")] = False,
    no_evict: Annotated[bool, typer.Option("--no-evict", help="Evict nothing for it.")] = False,
    flavour: Flavour = "auto",
    dry_run: DryRun = False,
) -> int:
    """Make models resident, and wait until they are."""
    return resident.warm(settings, tuple(models), to, ttl, pin, no_wait, no_evict, flavour, dry_run)


def pin_(
    settings: Settings,
    models: SomeModels,
    place: On = "host",
    duration: Annotated[str | None, typer.Option("--for", metavar="TIME", help="Unpin by itself after it.")] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for those who look.")] = "",
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Whose pin it is; you.")] = None,
) -> int:
    """Make models resident and never evict them, until unpinned."""
    return resident.pin(settings, tuple(models), place, duration, reason, owner)


def unpin_(
    settings: Settings,
    models: Models = None,
    owner: Annotated[str | None, typer.Option("--owner", metavar="NAME", help="Only pins of this owner.")] = None,
    mine: Annotated[bool, typer.Option("--mine", help="Only your own pins; of all models when none is named.")] = False,
    all: Annotated[bool, typer.Option("--all", help="Pins of all models.")] = False,
) -> int:
    """Drop pins."""
    return resident.unpin(settings, tuple(models or ()), owner, mine, all)


def evict_(
    settings: Settings,
    models: Models = None,
    place: Annotated[
        str | None, typer.Option("--on", metavar="PLACE", help="From which place: host; with --to host, its GPU.")
    ] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="host|disk", help="host: what leaves a GPU is kept in host memory.")
    ] = "disk",
    all: Annotated[bool, typer.Option("--all", help="All that nobody uses or has pinned.")] = False,
    idle: Annotated[str | None, typer.Option("--idle", metavar="TIME", help="All unused for this long.")] = None,
    until_free: Annotated[
        str | None, typer.Option("--until-free", metavar="SIZE", help="As many as leave this much free.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Those in use, too: they go with their last user.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for users to leave, up to --timeout.")] = False,
    dry_run: DryRun = False,
) -> int:
    """Give residencies up; the models stay in the store."""
    return evicting.evict(settings, tuple(models or ()), place, all, idle, until_free, force, wait, dry_run, to)


def wait_(
    settings: Settings,
    models: Models = None,
    condition: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="ready, warm, gone, idle, attached or free=SIZE.")
    ] = "",
    place: On = "host",
    any: Annotated[bool, typer.Option("--any", help="Come back for the first of several models.")] = False,
) -> int:
    """Come back when a condition holds; exit with 124 when it does not within --timeout."""
    return resident.wait(settings, tuple(models or ()), condition, place, any)


def ps_(
    settings: Settings,
    targets: Annotated[list[str] | None, typer.Argument(metavar="[MODEL|PID]...", help="Only these.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Only leases of this user.")] = None,
    job: Annotated[str | None, typer.Option("--job", metavar="ID", help="Only leases of this batch job.")] = None,
    filter: Filter = None,
    sort: Sort = None,
    limit: Limit = None,
    group_by: Annotated[
        str | None,
        typer.Option("--group-by", metavar="model|user|job|container", help="One row for all that share this."),
    ] = None,
) -> int:
    """Show what is resident and who uses it."""
    return processes.ps(settings, tuple(targets or ()), user, job, tuple(filter or ()), sort, limit, group_by)
