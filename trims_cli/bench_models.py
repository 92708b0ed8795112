"""Which models a workload asks for: the paper's, built; the user's own; or those that a recorded trace names."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, BinaryIO

from trims.errors import BadInput, UsageError
from trims.refs import name_from_path, parse_ref
from trims.workload import own, trace
from trims.workload.models import ModelSpec, positions
from trims.workload.plan import Stream
from trims.workload.world import default_directory
from trims_cli.progress import Meter
from trims_cli.settings import Settings

if TYPE_CHECKING:
    from trims_cli.bench_asked import Asked


def choose(settings: Settings, asked: Asked) -> tuple[tuple[ModelSpec, ...], Stream | None]:
    """(models, stream): all models to choose from, and the recorded stream where one is to be replayed."""
    if asked.trace_in is not None:
        return _recorded(settings, asked)
    names = [*([asked.zoo] if asked.zoo not in (None, "paper") else []), *asked.models]
    if asked.zoo == "paper" or not names:
        if names:
            raise UsageError("--zoo paper and --model exclude each other", "", "name files, or the paper's models")
        return _paper(settings, asked), None
    models = own.specs([str(name) for name in names], settings.config.store)
    positions(models)
    return models, None


def _paper(settings: Settings, asked: Asked) -> tuple[ModelSpec, ...]:
    """The 37 small models of the paper, built when missing."""
    from trims.workload import zoo  # all its graphs: only for those who build them

    base = os.path.abspath(asked.work_dir or default_directory(os.environ))
    directory = os.path.join(base, "zoo")
    tensors_only = asked.setting.function in ("weights", "torch")
    with Meter(settings, "building models", "bench-workload") as meter:
        return zoo.build(
            zoo.paper_models(asked.scale),
            directory,
            seed=0,
            scale=asked.scale,
            progress=lambda name, done, total: meter(done, total),
            weights_only=tensors_only,
        )


def _recorded(settings: Settings, asked: Asked) -> tuple[tuple[ModelSpec, ...], Stream]:
    """The trace's requests over models that have files: those given, or where the store has them from."""
    assert asked.trace_in is not None
    with _open(asked.trace_in) as file:
        found = trace.read(file, asked.trace_in)
    stream = found.stream(closed=asked.arrival == "closed")
    if not len(stream):
        raise BadInput(f"{asked.trace_in} cannot be replayed", "no request is in it")
    given = {parse_ref(name_from_path(m.name)): m for m in own.specs(asked.models, "")} if asked.models else {}
    models = tuple(_with_file(spec, given, settings.config.store) for spec in stream.models)
    positions(models)
    return models, Stream(models, stream.model, stream.at, stream.clients)


def _with_file(spec: ModelSpec, given: dict[str, ModelSpec], store: str) -> ModelSpec:
    ref = parse_ref(spec.name)
    if ref in given:
        return given[ref]
    return own.specs([own.origin(ref, store)], store)[0]


def _open(path: str) -> BinaryIO:
    try:
        return open(path, "rb")
    except OSError as error:
        raise BadInput(f"the trace {path} cannot be read", os.strerror(error.errno or 0)) from None
