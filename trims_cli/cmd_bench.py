"""bench workload, bench paper: what sharing gains. Each command only takes its flags; its work lies elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli.settings import Settings


def bench_workload_(
    settings: Settings,
    zoo: Annotated[
        str | None, typer.Option("--zoo", metavar="paper|DIR", help="The paper's 37 models, or a directory of files.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="FILE", help="A file, or a model of the store; repeatable.")
    ] = None,
    scale: Annotated[
        float, typer.Option("--scale", metavar="X", help="Size of the paper's models; 1 is theirs.")
    ] = 1.0,
    distribution: Annotated[
        str, typer.Option("--distribution", metavar="NAME", help="Of requests over models, as zipf:s=1.1.")
    ] = "pareto",
    share: Annotated[
        str, typer.Option("--share", metavar="LIST", help="Of the models that are in play, as 50% or 0.1,0.5,1.")
    ] = "1",
    clients: Annotated[
        str | None, typer.Option("--clients", metavar="LIST", help="How many ask at once, as 4 or 1,2,8.")
    ] = None,
    requests: Annotated[int, typer.Option("--requests", metavar="N", help="How many a cell.")] = 100,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="R", help="Arrivals a second, whether or not a client is free.")
    ] = None,
    arrival: Annotated[
        str | None, typer.Option("--arrival", metavar="NAME", help="closed, poisson:rate=R, bursty:rate=R.")
    ] = None,
    shift_every: Annotated[
        int, typer.Option("--shift-every", metavar="N", help="Other models become popular after every N requests.")
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="What is drawn follows from it.")] = 0,
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME", help="Which idle model goes first; lru is the paper's.")
    ] = "lru",
    min_resident: Annotated[
        str, typer.Option("--min-resident", metavar="TIME", help="How long a loaded model is safe from eviction.")
    ] = "0",
    budget: Annotated[
        str, typer.Option("--budget", metavar="SIZE", help="Memory for models; % is of all the models.")
    ] = "50%",
    function: Annotated[
        str, typer.Option("--function", metavar="NAME", help="What a request runs: weights, onnxruntime, torch, auto.")
    ] = "auto",
    start: Annotated[
        str, typer.Option("--start", metavar="HOW", help="fork: runtimes are prewarmed; process: a fresh interpreter.")
    ] = "fork",
    cache: Annotated[
        str, typer.Option("--cache", metavar="STATE", help="The page cache that loads find: warm or cold.")
    ] = "warm",
    threads: Annotated[int, typer.Option("--threads", metavar="N", help="Of each function, on both sides.")] = 1,
    ort_share: Annotated[
        str, typer.Option("--ort-share", metavar="HOW", help="How ONNX Runtime shares: exact or max.")
    ] = "exact",
    side: Annotated[str, typer.Option("--side", metavar="SIDE", help="both, or trims alone.")] = "both",
    unlimited: Annotated[
        bool, typer.Option("--unlimited", help="Also with room for all models: what evicting costs.")
    ] = False,
    trace_in: Annotated[
        str | None, typer.Option("--trace-in", metavar="FILE", help="Replay a trace of `trims trace record`.")
    ] = None,
    trace: Annotated[
        str | None, typer.Option("--trace", metavar="FILE", help="Every phase of every request, for ui.perfetto.dev.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="The report, JSON.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="The cells as CSV.")] = None,
    picture: Annotated[str | None, typer.Option("--picture", metavar="FILE", help="The map, as .png or .svg.")] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="FILE", help="Run the cells that this report lacks.")
    ] = None,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Where models, store and manager lie meanwhile.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the store in the work directory, for the next run.")
    ] = False,
) -> int:
    """Run a workload with real processes, through trims and natively, and compare."""
    from trims.errors import UsageError
    from trims.workload.setting import Setting
    from trims_cli import bench_asked, benching

    if rate is not None and arrival is not None:
        raise UsageError("--rate and --arrival exclude each other", "", "write --arrival poisson:rate=R")
    setting = Setting(
        function=function, start=start, cache=cache, share=ort_share, threads=threads, timeout=settings.seconds(120.0)
    )
    asked = bench_asked.Asked(
        zoo, model or [], scale, distribution, share, clients, requests,
        f"poisson:rate={rate}" if rate is not None else arrival, shift_every, seed, policy, min_resident, budget,
        setting, side, unlimited, trace_in, trace, output, csv, picture, resume, work_dir, keep,
    )  # fmt: skip
    return benching.run(settings, asked)


def bench_paper_(
    settings: Settings,
    quick: Annotated[bool, typer.Option("--quick", help="A sample of the set, within five minutes.")] = False,
    all: Annotated[bool, typer.Option("--all", help="Also the paper's other distributions and policies.")] = False,
    scale: Annotated[
        float | None, typer.Option("--scale", metavar="X", help="Size of the models; 1 is the paper's.")
    ] = None,
    function: Annotated[
        str, typer.Option("--function", metavar="NAME", help="What a request runs: weights, onnxruntime, torch, auto.")
    ] = "weights",
    cache: Annotated[
        str, typer.Option("--cache", metavar="STATE", help="The page cache that native loads find: cold or warm.")
    ] = "cold",
    share: Annotated[
        str | None, typer.Option("--share", metavar="LIST", help="Only these shares of the models, as 10%,100%.")
    ] = None,
    clients: Annotated[
        str | None, typer.Option("--clients", metavar="LIST", help="Only so many at once, as 1,10.")
    ] = None,
    requests: Annotated[int | None, typer.Option("--requests", metavar="N", help="How many a cell.")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The report; bench-paper.json if not given.")
    ] = None,
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="The cells too, as CSV.")] = None,
    pictures: Annotated[
        str | None, typer.Option("--pictures", "--picture", metavar="DIR", help="Draw the report, as PNG and SVG.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="FILE", help="Measure what this report lacks, and add it.")
    ] = None,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Where models, store and manager lie meanwhile.")
    ] = None,
) -> int:
    """Run the paper's experiments and put what this machine shows beside each of its claims."""
    from trims_cli import bench_paper

    asked = bench_paper.Asked(
        quick, all, scale, function, cache, share, clients, requests, output, csv, pictures, resume, work_dir
    )
    return bench_paper.run(settings, asked)


def bench_calibrate_(
    settings: Settings,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="The cost file, JSON, for `trims simulate --cost`."),
    ] = None,
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Size of the models; 1 is the paper's.")] = 0.05,
    requests: Annotated[int, typer.Option("--requests", metavar="N", help="Requests of each run.")] = 300,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Where models, store and manager lie meanwhile.")
    ] = None,
) -> int:
    """Measure what requests and loads cost on this machine, for simulated runs."""
    from trims_cli import bench_cost

    return bench_cost.run_calibrate(settings, output, scale, requests, work_dir)


def bench_validate_(
    settings: Settings,
    cost: Annotated[
        str | None, typer.Option("--cost", metavar="FILE", help="A cost file; without one, it calibrates first.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", metavar="FILE", help="The verdicts, JSON.")] = None,
    scale: Annotated[float, typer.Option("--scale", metavar="X", help="Size of the models; 1 is the paper's.")] = 0.05,
    requests: Annotated[int, typer.Option("--requests", metavar="N", help="Requests of each run.")] = 1000,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", help="Real runs of each check.")] = 3,
    only: Annotated[str | None, typer.Option("--only", metavar="LIST", help="Some of the checks, as 1,4.")] = None,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Where models, store and manager lie meanwhile.")
    ] = None,
) -> int:
    """Serve five workloads for real and simulated, and say whether hit rates and latencies agree."""
    from trims_cli import bench_cost

    return bench_cost.run_validate(settings, output, cost, scale, requests, repeats, only, work_dir)
