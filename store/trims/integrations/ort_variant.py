"""The child process that derives an ONNX Runtime variant: `python -m trims.integrations.ort_variant build ...`.

It lets ONNX Runtime do what it does on every load - optimise the graph for this processor - saves the result, and puts
it into the store as one more form of the model. Before that it runs a session of the derived form, over memory as
clients will, beside the default session, on made-up inputs: the outputs must be the same bits.

One build of a variant at a time: a file lock of the store, so that others find it finished. The process limits itself
first: no core file, no new privileges, bounded files, memory and time, and, where the kernel lets it, no network.
Standard output gets one JSON object: {"key", "built", "nbytes", "verified"}, or the fields of an error.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from trims.errors import NoSpace, NoSuchVariant, TrimsError
from trims.units import format_size

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime as ort
    from onnx import ModelProto

    from trims.client.mapping import Region
    from trims.disk.importers.base import Source
    from trims.disk.store import Store

MIN_EXTERNAL = 1024
"""Smaller initializers stay in the graph: ONNX Runtime reads shapes while loading and takes none from outside."""

LOCK_TIMEOUT = 600.0
_MEMORY_FACTOR, _MEMORY_EXTRA = 16, 32 << 30
_CPU_SECONDS = 3600
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m trims.integrations.ort_variant", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("key", help="print the key of this ONNX Runtime on this processor")
    builder = verbs.add_parser("build", help="build the variant of one model")
    builder.add_argument("--store", required=True)
    builder.add_argument("--digest", required=True)
    builder.add_argument("--key", help="build for this runtime and processor, or not at all")
    given = parser.parse_args(arguments)
    try:
        report = _key() if given.verb == "key" else _build(given.store, given.digest, given.key)
    except TrimsError as error:
        print(json.dumps(error.to_dict()))
        return error.exit_code
    print(json.dumps(report))
    return 0


def _key() -> dict[str, object]:
    from trims.integrations.ort_key import variant_key

    try:
        return {"key": variant_key()}
    except ImportError:
        raise _no_runtime() from None


def _no_runtime() -> NoSuchVariant:
    return NoSuchVariant("no variant can be built", "onnxruntime is not installed", "pip install 'trims[onnxruntime]'")


def _build(root: str, digest: str, wanted: str | None) -> dict[str, object]:
    confine()
    try:
        import onnxruntime
    except ImportError:
        raise _no_runtime() from None
    from trims.integrations.ort_key import variant_key

    if wanted not in (None, variant_key()):
        raise NoSuchVariant("no variant can be built", f"{sys.executable} has another runtime: {variant_key()}")
    from trims.disk.sidecar import read_sidecar
    from trims.disk.store import open_store

    onnxruntime.set_default_logger_severity(4)
    store = open_store(root)
    most = _MEMORY_FACTOR * read_sidecar(store.paths.sidecar(digest)).span_nbytes
    _limit(resource.RLIMIT_FSIZE, most + (1 << 30))
    _limit(resource.RLIMIT_AS, most + _MEMORY_EXTRA)
    return build(store, digest)


def confine() -> bool:
    """Give up what deriving a variant does not need; whether that includes the network, which not every kernel allows.

    Called before anything starts threads: a process that has some cannot make a user namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    alone: bool = libc.unshare(_CLONE_NEWNET) == 0 or libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, _CPU_SECONDS)
    return alone


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def build(store: Store, digest: str) -> dict[str, object]:
    """Derive and publish the variant of the model `digest`, unless the store has it. Raises NoSuchVariant."""
    from trims.disk.sidecar import read_sidecar
    from trims.integrations.ort_builder import refusal
    from trims.integrations.ort_key import variant_key
    from trims.linux import atomic, flock

    key = variant_key()
    sidecar = store.paths.variant_sidecar(digest, key)
    try:
        with flock.held(f"{store.root}/locks/variant-{digest[:2]}.lock", exclusive=True, timeout=LOCK_TIMEOUT):
            if os.path.exists(sidecar):
                return {"key": key, "built": False, "nbytes": read_sidecar(sidecar).span_nbytes}
            if (why := refusal(store.paths, digest, key)) is not None:
                raise NoSuchVariant("no variant can be built", why)
            return {"key": key, "built": True, **_noting(store, digest, key)}
    except OSError as error:
        raise atomic.translate(error, "building a variant") from None


def _noting(store: Store, digest: str, key: str) -> dict[str, object]:
    """Derive; a refusal is noted for others."""
    from trims.integrations.ort_builder import refuse

    try:
        return _derive(store, digest, key)
    except NoSuchVariant as error:
        refuse(store.paths, digest, key, str(error))
        raise


def _derive(store: Store, digest: str, key: str) -> dict[str, object]:
    from trims.client.attachment import in_host_memory
    from trims.client.direct import DirectBackend
    from trims.integrations import ort_options
    from trims.linux import atomic

    model = in_host_memory(DirectBackend(store, f"id:{digest}").attach("raw").region)
    if model.contents.graph is None:
        raise NoSuchVariant("no variant can be built", "the model has no graph: it was not imported from ONNX")
    try:
        with atomic.staged(store.paths.tmp, ".onnx") as graph, atomic.staged(store.paths.tmp, ".bin") as weights:
            return _publish(store, digest, key, model, graph, weights)
    except ort_options.ERRORS as error:
        _blame_the_disk(store, 2 * len(model.base))
        raise NoSuchVariant("ONNX Runtime cannot derive it", " ".join(str(error).split())) from None


def _blame_the_disk(store: Store, need: int) -> None:
    """Raise NoSpace when the weights as ONNX Runtime writes them, and the container, do not fit side by side."""
    disk = os.statvfs(store.root)
    free = disk.f_bavail * disk.f_frsize
    if need > free:
        raise NoSpace(
            "the variant does not fit into the store",
            f"it needs {format_size(need)}, the disk has {format_size(free)} free",
            "free some space with `trims gc`",
            need=need,
            free=free,
        )


def _publish(
    store: Store, digest: str, key: str, model: Region, graph_path: str, weights_path: str
) -> dict[str, object]:
    import numpy as np
    import onnx
    import onnxruntime as ort

    from trims.disk.ingest import import_variant
    from trims.integrations import ort_graph

    default = _optimise(model, graph_path, weights_path)
    weights = np.memmap(weights_path, np.uint8, "r") if os.path.getsize(weights_path) else np.empty(0, np.uint8)
    graph = onnx.load(graph_path, load_external_data=False)
    ort_graph.inline_inner(graph, lambda offset, nbytes: weights[offset : offset + nbytes].tobytes())
    spans = ort_graph.external_spans(graph)
    verified = _verify(default, ort_graph.with_offsets(graph, spans), weights)
    del default
    origin = {"version": ort.__version__, "options": "default", "provider": "cpu", "verified": verified}
    made = import_variant(store, digest, key, _source(graph, spans, weights, origin))
    return {"nbytes": made.span_nbytes, "verified": verified}


def _optimise(model: Region, graph_path: str, weights_path: str) -> ort.InferenceSession:
    """The default session over the raw weights. What it made of graph and weights is in the two files, side by side."""
    import onnxruntime as ort

    from trims.integrations import ort_options
    from trims.integrations.ort_start import graph_of

    options = ort_options.over(model.base, ort.SessionOptions(), optimised=False, prepack=True)
    options.log_severity_level = 4  # it warns that the result is for this machine only; the key says which
    options.optimized_model_filepath = graph_path
    name = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{name}file_name", os.path.basename(weights_path))
    options.add_session_config_entry(f"{name}min_size_in_bytes", str(MIN_EXTERNAL))
    return ort.InferenceSession(graph_of(model), options, ["CPUExecutionProvider"], enable_fallback=0)


def _verify(default: ort.InferenceSession, skeleton: bytes, weights: np.ndarray[Any, Any]) -> str:
    """Load the derived form as clients will and compare: "bits" when equal, "loads" when nothing could be run.

    Raises NoSuchVariant when the outputs differ though the default session repeats its own.
    """
    import onnxruntime as ort

    from trims.integrations import ort_inputs, ort_options
    from trims.integrations.ort_start import Skeleton

    options = ort_options.over(weights, ort.SessionOptions(), optimised=True, prepack=True)
    derived = ort.InferenceSession(Skeleton(skeleton), options, ["CPUExecutionProvider"], enable_fallback=0)
    try:
        inputs, expected = ort_inputs.first_run(default)
    except ort_inputs.FAILURES:
        return "loads"
    if ort_inputs.outputs(derived, inputs) == expected:
        return "bits"
    if ort_inputs.outputs(default, inputs) != expected:
        return "loads"  # the model is random: there is nothing to compare with
    raise NoSuchVariant("no variant can be used", "the derived form computes other bits than the default session")


def _source(
    graph: ModelProto, spans: dict[str, tuple[int, int]], weights: np.ndarray[Any, Any], origin: dict[str, str]
) -> Source:
    """The derived form as something to import: its external tensors, and the graph that points at them."""
    from trims.disk.importers.base import Source, SourceTensor
    from trims.integrations import ort_graph

    def tensor(proto: Any, offset: int, nbytes: int) -> SourceTensor:
        dtype, shape = ort_graph.stored_as(proto, nbytes)
        return SourceTensor(proto.name, dtype, shape, lambda: weights[offset : offset + nbytes].data)

    def skeleton(offsets: Any) -> bytes:
        return ort_graph.with_offsets(graph, {name: (offsets[name], nbytes) for name, (_, nbytes) in spans.items()})

    tensors = [tensor(t, *spans[t.name]) for t in graph.graph.initializer if t.name in spans]
    return Source("onnxruntime", tensors, skeleton, origin={"framework": "onnxruntime", **origin})


if __name__ == "__main__":
    sys.exit(main())
