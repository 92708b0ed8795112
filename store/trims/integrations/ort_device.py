"""ONNX Runtime sessions over weights on a GPU, with its CUDA provider.

ONNX Runtime uses a caller's initializer in place where it planned to have it on that very device. Whatever else looks
at an initializer takes its address for one in host memory. So

- nothing is optimised (no optimiser reads weights) nor packed;
- only floating-point tensors of a kilobyte and more, which no kernel of the CUDA provider wants on the host, are given
  from the GPU; integers, which may be shapes and indices, and small ones go into the graph, copied;
- the graph points at no bytes of ours that it could read by mistake, but at memory that is all zeros and takes no room;
- a session that did not use every tensor it was given is not used: it would compute with those zeros.
"""

from __future__ import annotations

import mmap
import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import GraphProto, TensorProto

from trims.client import capsules
from trims.client.mapping import dtype_of
from trims.disk.importers.onnx_tensors import DTYPES, is_external
from trims.integrations import ort_graph, ort_options, ort_start
from trims.location import LOCATION

if TYPE_CHECKING:
    from trims.client.device_mapping import DeviceRegion
    from trims.client.device_memory import Mapped

CUDA = "CUDAExecutionProvider"
SMALLEST = 1024
"""Bytes of the smallest tensor that is given from the GPU."""

_MAP_NORESERVE = 0x4000  # <asm-generic/mman.h>; not named by Python 3.11
Provider = str | tuple[str, dict[str, Any]]


class NotUsed(RuntimeError):
    """ONNX Runtime made a session that does not use the weights it was given."""


def usual(ordinal: int) -> list[Provider]:
    """The providers of a session for which none were named, with a model on that GPU."""
    cuda: list[Provider] = [(CUDA, {"device_id": str(ordinal)})] if CUDA in ort.get_available_providers() else []
    return [*cuda, "CPUExecutionProvider"]


def obstacle(ordinal: int, providers: Sequence[Provider], options: Sequence[dict[str, Any]] | None) -> str:
    """Why a session with these providers cannot use weights on that GPU, or "". options: one for each, or None."""
    first = providers[0] if providers else "CPUExecutionProvider"
    name, given = first if isinstance(first, tuple) else (first, options[0] if options else {})
    if CUDA not in ort.get_available_providers():
        return f"this onnxruntime has no {CUDA} (pip install onnxruntime-gpu)"
    if name != CUDA:
        return f"its first provider is {name}, and only {CUDA} uses weights on a GPU"
    if str(given.get("device_id", 0)) != str(ordinal):
        return f"it computes on GPU {given.get('device_id', 0)}, and they are on GPU {ordinal}"
    return "" if ort_options.can_share() else f"onnxruntime {ort.__version__} is older than 1.31"


def session(region: DeviceRegion, wanted: ort_options.Wanted, make: ort_start.Make) -> ort.InferenceSession:
    """The session over `region`. Raises NotUsed, ort_options.ERRORS; NoSuchVariant, DeviceLost.

    It cannot be given other providers afterwards: ONNX Runtime would make it anew, without its weights.
    """
    region.mapped.check()
    graph = onnx.load_from_string(ort_start.graph_of(region))
    given = _split(graph, lambda offset, nbytes: region.blob((offset, nbytes)))
    options = wanted.fresh()
    if options.optimized_model_filepath:
        raise NotUsed("an optimised model cannot be written from weights on a GPU")
    nothing = _adjust(options, region.mapped.nbytes)
    uses = {tensor.name: _Use(region.mapped) for tensor, _ in given}
    values = [(tensor.name, _value(uses[tensor.name], tensor, offset)) for tensor, offset in given]
    for name, value in values:
        options.add_initializer(name, value)
    made = make(ort_start.Skeleton(graph.SerializeToString()), options)
    made._sess_options = made._sess_options_initial = wanted.fresh()
    ort_start.keep(made, (region.mapped, nothing))
    held = {name: weakref.ref(use) for name, use in uses.items()}
    values.clear()
    value = None
    uses.clear()
    left_out = [name for name, ref in held.items() if ref() is None]
    if left_out:
        more = f" and {len(left_out) - 1} more" if left_out[1:] else ""
        raise NotUsed(f"ONNX Runtime wants {left_out[0]!r}{more} elsewhere than on the GPU")
    return made


class _Use:
    """One tensor given to ONNX Runtime: it lives as long as that holds it, and keeps the memory."""

    __slots__ = ("__weakref__", "mapped")

    def __init__(self, mapped: Mapped) -> None:
        self.mapped = mapped


def _split(graph: onnx.ModelProto, read: ort_graph.Read) -> list[tuple[TensorProto, int]]:
    """The tensors to be given from the GPU, with their offsets; the bytes of all others are put into the graph."""
    ort_graph.inline_inner(graph, read)
    apart = set(_used(graph.graph)) - {value.name for value in graph.graph.input}
    given = []
    for tensor in graph.graph.initializer:
        if not is_external(tensor):
            continue
        offset, nbytes = ort_graph.span(tensor)
        dtype, _ = ort_graph.stored_as(tensor, nbytes)
        if nbytes >= SMALLEST and dtype.startswith(("float", "bfloat")) and tensor.name in apart:
            given.append((tensor, offset))
        else:
            ort_graph.inline(tensor, read)
    return given


def _used(graph: GraphProto) -> Iterator[str]:
    """The names that nodes read, those of subgraphs included."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _used(inner)


def _adjust(options: ort.SessionOptions, nbytes: int) -> object:
    """Have ONNX Runtime leave weights alone, and look for those that it should not look for in nothing, returned."""
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(ort_options.DISABLE_PREPACKING, "1")
    options.add_session_config_entry(ort_options.DIRECT, "1")
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
    nothing = np.frombuffer(mmap.mmap(-1, nbytes, flags, mmap.PROT_READ), np.uint8)
    options.add_external_initializers_from_files_in_memory([LOCATION], [nothing.data], [nbytes])
    return nothing


def _value(use: _Use, tensor: TensorProto, offset: int) -> ort.OrtValue:
    """A tensor on the GPU as ONNX Runtime's own. It takes capsules of DLPack's first version alone."""
    mapped = use.mapped
    address, device = mapped.address + offset, (capsules.CUDA, mapped.ordinal)
    dtype = dtype_of(DTYPES[tensor.data_type])
    return ort.OrtValue.from_dlpack(
        capsules.of_memory(address, tuple(tensor.dims), dtype, device, use, versioned=False)
    )
