"""ONNX Runtime session options: copied as far as they can be seen, and judged: do they leave the graph alone?

A SessionOptions object takes our buffer under a name that it then has for good, so a caller's object is never touched:
its attributes and the configuration entries named here go into a fresh one. What cannot be seen (custom operator
libraries, free-dimension overrides, other entries) cannot be copied: whoever needs these passes a function that
returns a fresh object, which is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort

from trims.errors import UsageError
from trims.location import LOCATION

DISABLE_PREPACKING = "session.disable_prepacking"
DIRECT = "session.use_external_initializer_file_buffers_directly"
_PARALLEL = "session.prepack.enable_parallel"

RUNTIME_ENTRIES = (
    DISABLE_PREPACKING,
    "session.dynamic_block_base",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.inter_op.spin_duration_us",
    "session.intra_op.allow_spinning",
    "session.intra_op.spin_duration_us",
    "session.intra_op_thread_affinities",
    _PARALLEL,
    "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
)
"""Entries that say how a graph is run: an optimised graph serves them as well."""

GRAPH_ENTRIES = (
    "mlas.enable_gemm_fastmath_arm64_bfloat16",
    "optimization.constant_folding_max_output_size_in_bytes",
    "optimization.disable_specified_optimizers",
    "optimization.enable_cast_chain_elimination",
    "optimization.enable_gelu_approximation",
    "optimization.minimal_build_optimizations",
    "session.disable_aot_function_inlining",
    "session.disable_double_qdq_remover",
    "session.disable_qdq_constant_folding",
    "session.disable_quant_qdq",
    "session.enable_dq_matmulnbits_fusion",
    "session.enable_quant_qdq_cleanup",
    "session.graph_optimizations_loop_level",
    "session.set_denormal_as_zero",
    "session.x64quantprecision",
)
"""Entries that change what the optimiser makes of a graph, so that the default's result is not what was asked for.

Both lists are short because a look at an entry that is not set costs 35 us: a C++ exception.
"""

OptionsLike = Any
"""A SessionOptions, a function that returns a fresh one, or None."""


class Wanted:
    """What a caller passed as session options, read once.

    is_default: whether the optimiser would do with them what it does without any.
    """

    __slots__ = ("_entries", "given", "is_default")

    def __init__(self, given: OptionsLike, entries: Mapping[str, str] | None = None) -> None:
        """entries: all that `given` has, where that is known. Raises UsageError for what is none of the three."""
        self.given = given
        self._entries: Mapping[str, str] = entries or {}
        self.is_default = given is None
        if given is None or callable(given):
            return
        if not isinstance(given, ort.SessionOptions):
            raise UsageError(
                "bad sess_options", f"it is a {type(given).__name__}", "pass an onnxruntime.SessionOptions"
            )
        if entries is None:
            found = {name: entry(given, name) for name in RUNTIME_ENTRIES + GRAPH_ENTRIES}
            self._entries = {name: value for name, value in found.items() if value is not None}
        self.is_default = (
            given.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
            and not given.optimized_model_filepath
            and not self._entries.keys() & set(GRAPH_ENTRIES)
        )

    def fresh(self) -> ort.SessionOptions:
        """A SessionOptions object that is ours to change."""
        if callable(self.given):
            made = self.given()
            if not isinstance(made, ort.SessionOptions):
                raise UsageError("bad sess_options", "the function returned no SessionOptions", "return a fresh one")
            return made
        copy = ort.SessionOptions()
        if self.given is not None:
            for name, member in vars(ort.SessionOptions).items():
                if isinstance(member, property) and getattr(self.given, name) != getattr(copy, name):
                    setattr(copy, name, getattr(self.given, name))
            for name, value in self._entries.items():
                copy.add_session_config_entry(name, value)
        return copy


def entry(options: ort.SessionOptions, name: str) -> str | None:
    """A configuration entry, or None where it is not set."""
    try:
        value: str = options.get_session_config_entry(name)
    except RuntimeError:  # its way of saying "no such key"
        return None
    return value


def over(base: np.ndarray[Any, Any], options: ort.SessionOptions, optimised: bool, prepack: bool) -> ort.SessionOptions:
    """`options`, made to use the region `base` in place. optimised: the graph has been, leave it alone.

    ONNX Runtime takes no reference to the buffer: whoever makes the session keeps it (see `session`).
    """
    if len(base):
        options.add_external_initializers_from_files_in_memory([LOCATION], [base.data], [len(base)])
        options.add_session_config_entry(DIRECT, "1")
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not prepack:
        options.add_session_config_entry(DISABLE_PREPACKING, "1")
    elif options.intra_op_num_threads != 1 and entry(options, _PARALLEL) is None:
        options.add_session_config_entry(_PARALLEL, "1")  # vit6 on two cores: 186 to 108 ms, the same bits
    return options


def can_share() -> bool:
    """Whether this ONNX Runtime uses a caller's buffer in place. Releases before 1.31 copy it without a word."""
    return hasattr(ort.SessionOptions, "add_external_initializers_from_files_in_memory") and _version() >= (1, 31)


def _version() -> tuple[int, int]:
    major, minor = ort.__version__.split(".")[:2]
    return int(major), int(minor)


ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        kind
        for kind in vars(ort.capi.onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)
"""What ONNX Runtime raises: its exceptions share no root."""
