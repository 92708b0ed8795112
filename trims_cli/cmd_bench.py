"""bench paper: what sharing gains on this machine. Each command only takes its flags; what it does lies elsewhere."""

from __future__ import annotations

from typing import Annotated

import typer

from trims_cli.settings import Settings


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
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The report, JSON.")
    ] = "bench-paper.json",
    csv: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="The cells too, as CSV.")] = None,
    pictures: Annotated[
        str | None, typer.Option("--pictures", "--picture", metavar="DIR", help="Draw the report, as PNG and SVG.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the report in FILE.")] = False,
    work_dir: Annotated[
        str | None, typer.Option("--work-dir", metavar="DIR", help="Where models, store and manager lie meanwhile.")
    ] = None,
) -> int:
    """Run the paper's experiments and put what this machine shows beside each of its claims."""
    from trims_cli import bench_paper

    asked = bench_paper.Asked(quick, all, scale, function, cache, output, csv, pictures, resume, work_dir)
    return bench_paper.run(settings, asked)
