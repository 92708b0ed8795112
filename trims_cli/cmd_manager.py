"""The commands about the manager itself: start, stop, restart, status, logs."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from trims import places
from trims.errors import TrimsError, UsageError
from trims_cli import asked, gpus, output, stopping
from trims_cli.output import Column, Item
from trims_cli.settings import Settings

STARTED = (
    Column("PID", "pid", "int"), Column("SOCKET", "socket"), Column("STORE", "store"), Column("OUTCOME", "outcome"),
)  # fmt: skip

HostBudget = Annotated[str | None, typer.Option("--host-budget", metavar="SIZE", help="Host memory for models.")]
GpuList = Annotated[
    str | None, typer.Option("--gpu", metavar="LIST", help="GPUs for models: auto, none, or numbers and UUIDs.")
]
GpuBudget = Annotated[str | None, typer.Option("--gpu-budget", metavar="SIZE", help="Memory of each GPU for models.")]
DemoteTo = Annotated[
    str | None, typer.Option("--demote-to", metavar="host|disk", help="Where a model is kept that gives way on a GPU.")
]
IdleExit = Annotated[str | None, typer.Option("--idle-exit", metavar="TIME", help="End when unused for so long.")]
Policy = Annotated[str | None, typer.Option("--policy", metavar="NAME", help="Which idle model goes first.")]
MinResident = Annotated[
    str | None, typer.Option("--min-resident", metavar="TIME", help="Evict none for another so soon after its load.")
]
Scope = Annotated[str | None, typer.Option("--scope", metavar="user|system", help="Serve this user, or every one.")]
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="TIME", help="How long an idle model is kept.")]


def start_(
    settings: Settings,
    foreground: Annotated[bool, typer.Option("--foreground", help="Stay; for service managers.")] = False,
    host_budget: HostBudget = None,
    gpu: GpuList = None,
    gpu_budget: GpuBudget = None,
    demote_to: DemoteTo = None,
    idle_exit: IdleExit = None,
    policy: Policy = None,
    min_resident: MinResident = None,
    ttl: Ttl = None,
    scope: Scope = None,
    warm: Annotated[list[str] | None, typer.Option("--warm", metavar="MODEL", help="Warm it then; repeatable.")] = None,
    print_unit: Annotated[bool, typer.Option("--print-unit", help="Print systemd units, and start nothing.")] = False,
) -> int:
    """Start the manager; comes back when it is ready. One that runs already is fine."""
    flags = _flags(host_budget, gpu, gpu_budget, demote_to, idle_exit, policy, min_resident, ttl, scope)
    settings.override(flags)
    if print_unit:
        from trims_cli import units_systemd

        output.write(units_systemd.text(settings.config, {key: value for key, value in flags.items() if value}))
        output.write("\n" + units_systemd.socket(settings.config))
        return 0
    started = launch(settings, foreground)
    if foreground:
        return 0
    _print_started(settings, started)
    if warm:
        from trims_cli import resident

        return resident.warm(settings, tuple(warm))
    return 0


def _flags(
    host_budget: str | None, gpu: str | None, gpu_budget: str | None, demote_to: str | None, idle_exit: str | None,
    policy: str | None, min_resident: str | None, ttl: str | None, scope: str | None,
) -> dict[str, str | None]:  # fmt: skip
    """The keys of the configuration that flags set. Numbers of GPUs are those of the caller, and leave as UUIDs."""
    return {
        "budget.host": host_budget,
        "gpu.devices": gpu if gpu is None else gpus.devices(gpu),
        "budget.gpu": gpu_budget,
        "residency.demote_to": demote_to,
        "manager.idle_exit": idle_exit,
        "residency.policy": policy,
        "residency.min_resident": min_resident,
        "residency.ttl": ttl,
        "manager.scope": scope,
    }


def launch(settings: Settings, foreground: bool = False) -> Item:
    """Start a manager, or find the one that runs."""
    from trims.manager import launch as launcher

    config = settings.config
    check_values(settings)
    started = launcher.start(config, foreground=foreground, timeout=settings.seconds(30.0))
    differs = asked.differences(config, started["settings"], started["store"]) if started["already"] else []
    return {**started, "outcome": "already" if started["already"] else "started", "differs": differs}


def check_values(settings: Settings) -> None:
    """Raise UsageError for any bad value before a process is started over it."""
    from trims.config import OPTIONS
    from trims_cli.policy import check

    for option in OPTIONS:
        settings.config[option.key]
    origin = settings.config.origin("residency.policy")
    check(settings.config["residency.policy"], "" if origin == "flag" else f"from {origin}")


def _print_started(settings: Settings, item: Item) -> None:
    if item["differs"]:
        output.note(asked.line(item["differs"]))
    for line in _left_out(settings, item):
        output.note(f"trims: {line}")
    if settings.form != "table":
        output.emit(settings, "start", [item], STARTED, "pid")
        return
    verb = "runs already" if item["outcome"] == "already" else "runs"
    budgets = ", ".join(
        f"{output.cell('place', place, settings.verbose)} {output.cell('size', n)}"
        for place, n in _budgets(item).items()
    )
    output.tell(
        settings, lambda: f"manager {verb}: process {item['pid']}, socket {item['socket']}, budget {budgets or '-'}"
    )
    found = {key: value for key, value in (item.get("found") or {}).items() if value}
    if found and item["outcome"] == "started":
        output.tell(settings, lambda: "left by an earlier life: " + output.cell("text", found))


def _left_out(settings: Settings, item: Item) -> list[str]:
    """What to say of GPUs that a new manager leaves out. That there are none is no news unless GPUs were asked for."""
    if item["already"]:
        return []
    asked_for = any(settings.config.origin(key) != "default" for key in ("gpu.devices", "budget.gpu"))
    wanted = asked_for and settings.config.text("gpu.devices") != "none"
    return [line for place, line in item["left_out"].items() if place != places.GPU or wanted]


def _budgets(item: Item) -> dict[str, int]:
    budgets = item.get("budgets") or {}
    return {place: value["budget"] if isinstance(value, dict) else value for place, value in budgets.items()}


def stop_(
    settings: Settings,
    models: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Wait for clients up to --timeout; so it is unasked.")] = False,
    now: Annotated[bool, typer.Option("--now", help="Wait for nobody.")] = False,
) -> int:
    """Stop the manager. Clients that have models mapped go on computing."""
    if models:
        raise UsageError(
            "stop ends the manager and takes no model", "", f"to give its memory back: trims evict {' '.join(models)}"
        )
    if drain and now:
        raise UsageError("--drain and --now exclude each other")
    item = stopping.stop(settings, now)
    if settings.form != "table":
        output.emit(settings, "stop", [item], (Column("PID", "pid", "int"), Column("OUTCOME", "outcome")), None)
    elif item["outcome"] == "not-running":
        output.tell(settings, lambda: "no manager is running")
    else:
        output.tell(settings, lambda: f"manager {item['outcome']}: process {item['pid']}, {item['leases']} leases left")
    return 0


def restart_(
    settings: Settings,
    now: Annotated[bool, typer.Option("--now", help="Wait for no client.")] = False,
    keep_warm: Annotated[bool, typer.Option("--keep-warm", help="Warm again what is resident now.")] = False,
    host_budget: HostBudget = None,
    gpu: GpuList = None,
    gpu_budget: GpuBudget = None,
    demote_to: DemoteTo = None,
    idle_exit: IdleExit = None,
    policy: Policy = None,
    min_resident: MinResident = None,
    ttl: Ttl = None,
    scope: Scope = None,
) -> int:
    """Stop the manager and start a new one."""
    from trims_cli import glance

    settings.override(_flags(host_budget, gpu, gpu_budget, demote_to, idle_exit, policy, min_resident, ttl, scope))
    check_values(settings)
    keep_flags(settings)
    snapshot = glance.look(settings)
    kept = sorted({r.ref for r in snapshot.residencies if r.state == "resident"}) if snapshot and keep_warm else []
    stopping.stop(settings, now)
    _print_started(settings, launch(settings))
    if kept:
        from trims_cli import resident

        return resident.warm(settings, tuple(kept))
    return 0


def keep_flags(settings: Settings) -> None:
    """What the manager was started with by flags stays so, unless a flag or the configuration now says otherwise."""
    from trims.client.control import Control

    config = settings.config
    try:
        with Control(config.sockets) as control:
            item = control.request("status", wait=5.0)[0]
    except TrimsError:
        return
    running = item.get("settings", {})
    old = {key: running[key] for key, flag in asked.FLAGS.items() if flag and key in running}
    changed = {key: text for key, text in old.items() if config.origin(key) == "default" and config.text(key) != text}
    settings.override(changed)  # not what is so anyway: nobody asked for that


def status_(
    settings: Settings,
    check: Annotated[bool, typer.Option("--check", help="Print nothing; the exit code says it.")] = False,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Print metrics, from the index alone.")] = False,
) -> int:
    """Show whether a manager runs, which one and why, and its room. The exit code says it too."""
    from trims_cli import status

    return status.status(settings, check, prometheus)


def logs_(
    settings: Settings,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines are written.")] = False,
    lines: Annotated[int, typer.Option("--lines", metavar="N", help="How many of the last lines; 0 is all.")] = 50,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only of the last 10m, 2h, ...")] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="FILE", help="Write its latest spans there, as a Chrome trace.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the FILE of --trace.")] = False,
) -> int:
    """Show the manager's log."""
    from trims.paths import RuntimePaths
    from trims_cli import logfile

    if lines < 0:
        raise UsageError(f"bad number of lines {lines}", "", "give 0 or more")
    if trace is not None:
        if follow:
            raise UsageError("--trace and --follow exclude each other")
        return logfile.trace(settings, trace, since, force)
    for socket in settings.config.sockets:
        path = RuntimePaths(socket).log
        if os.path.exists(path):
            return logfile.show(path, follow, lines, since)
    raise TrimsError(
        "there is no log", f"looked beside {', '.join(settings.config.sockets)}", "start a manager with `trims start`"
    )
