"""simulate: a workload on a machine of another size, under another policy, on a virtual clock."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli.settings import Settings


def simulate_(
    settings: Settings,
    zoo: Annotated[
        str | None,
        typer.Option("--zoo", metavar="NAME", help="Models: the paper's 37 (paper, the default), or large too (all)."),
    ] = None,
    models: Annotated[
        int | None, typer.Option("--models", metavar="N", help="Instead: so many models of log-normal sizes.")
    ] = None,
    median: Annotated[str, typer.Option("--median", metavar="SIZE", help="Of --models: the median size.")] = "100MiB",
    sigma: Annotated[
        float, typer.Option("--sigma", metavar="X", help="Of --models: spread of the sizes' logarithms.")
    ] = 1.0,
    trace_in: Annotated[
        str | None, typer.Option("--trace-in", metavar="FILE", help="Instead: the requests of a recorded trace.")
    ] = None,
    distribution: Annotated[
        str, typer.Option("--distribution", "-d", metavar="NAME", help="Of requests over models, as zipf:s=1.1.")
    ] = "pareto",
    share: Annotated[
        str, typer.Option("--share", metavar="LIST", help="Of the models in play, as 0.5 or 10%,50%,100%.")
    ] = "100%",
    clients: Annotated[str, typer.Option("--clients", metavar="LIST", help="Requests at once, as 1,5,10.")] = "1",
    requests: Annotated[int, typer.Option("--requests", metavar="N", help="Requests in all.")] = 10000,
    rate: Annotated[
        str | None,
        typer.Option("--rate", metavar="ARRIVAL", help="Requests a second (open arrivals), or bursty:rate=20."),
    ] = None,
    shift_every: Annotated[
        int, typer.Option("--shift-every", metavar="N", help="Shift popularity after every N requests.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of models, order and arrivals.")] = 0,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="SIZE",
            help="Host memory for models, or a percentage of them all; 50%, or what the trace says.",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar="LIST", help="Names with commas, or all; lru is the paper's.")
    ] = "lru",
    min_resident: Annotated[
        str, typer.Option("--min-resident", metavar="TIME", help="Nothing is evicted sooner after its load.")
    ] = "0s",
    ttl: Annotated[
        str, typer.Option("--ttl", metavar="TIME", help="Idle models are given up after this time.")
    ] = "forever",
    cache: Annotated[
        str, typer.Option("--cache", metavar="STATE", help="How loads find the disk: warm (page cache) or cold.")
    ] = "warm",
    cost: Annotated[
        str | None, typer.Option("--cost", metavar="FILE", help="What things cost, from `trims bench calibrate`.")
    ] = None,
    native: Annotated[
        bool, typer.Option("--native", help="Simulate it natively and with room for all, too: speed-ups.")
    ] = False,
    nodes: Annotated[
        int | None, typer.Option("--nodes", metavar="N", help="A fleet of so many machines, each with the budget.")
    ] = None,
    routing: Annotated[
        str,
        typer.Option("--routing", metavar="LIST", help="Of a fleet: random, hash, hash:k=2, warm-first, or all."),
    ] = "warm-first",
    disk: Annotated[
        str,
        typer.Option("--disk-budget", "--disk", metavar="SIZE", help="Of a fleet: disk of each machine, as --budget."),
    ] = "100%",
    disk_filled: Annotated[
        bool, typer.Option("--disk-filled", help="Of a fleet: disks hold at the start what fits; else they are empty.")
    ] = False,
    remote_bandwidth: Annotated[
        str | None,
        typer.Option("--remote-bandwidth", metavar="SIZE", help="Of a fleet: bytes a second to each machine, as 1GiB."),
    ] = None,
    egress: Annotated[
        str | None,
        typer.Option("--egress", metavar="SIZE", help="Of a fleet: bytes a second that the remote store gives in all."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="Write a report, JSON, as of `bench workload`.")
    ] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write the cells as CSV.")] = None,
    picture: Annotated[
        str | None, typer.Option("--picture", "--pictures", metavar="DIR", help="Draw the report, as PNG and SVG.")
    ] = None,
) -> int:
    """Serve a workload on a machine that need not exist: the manager's own decisions under a virtual clock."""
    from trims_cli import simulating, simulating_fleet
    from trims_cli.simulating_input import MachineAsked, Workload

    workload = Workload(
        zoo, models, median, sigma, trace_in, distribution, share, clients, requests, rate, shift_every, seed
    )
    machine = MachineAsked(budget, policy, min_resident, ttl, cache, cost, native)
    files = simulating.Files(output, csv, picture)
    if nodes is not None:
        fleet = simulating_fleet.FleetAsked(nodes, routing, disk, disk_filled, remote_bandwidth, egress)
        return simulating_fleet.run(settings, workload, machine, files, fleet)
    return simulating.run(settings, workload, machine, files)
