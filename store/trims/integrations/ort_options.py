"""ONNX Runtime session options: copied as far as they can be seen, and judged: do they leave the graph alone?

A SessionOptions object takes our buffer under a name that it then has for good, so a caller's object is never touched:
its attributes and the configuration entries named here go into a fresh one. What Python cannot see (custom operator
libraries, free-dimension overrides, initializers) cannot be copied: whoever needs these passes a function that
returns a fresh object, which is used as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort

from trims.errors import UsageError
from trims.integrations.ort_key import LOCATION

DISABLE_PREPACKING = "session.disable_prepacking"
_DIRECT = "session.use_external_initializer_file_buffers_directly"

RUNTIME_ENTRIES = (
    DISABLE_PREPACKING,
    "session.collect_node_memory_stats_to_file",
    "session.disable_cpu_ep_fallback",
    "session.dynamic_block_base",
    "session.force_spinning_stop",
    "session.inter_op.allow_spinning",
    "session.inter_op.spin_backoff_max",
    "session.inter_op.spin_duration_us",
    "session.intra_op.allow_spinning",
    "session.intra_op.spin_backoff_max",
    "session.intra_op.spin_duration_us",
    "session.intra_op_thread_affinities",
    "session.prepack.enable_parallel",
    "session.use_device_allocator_for_initializers",
    "session.use_env_allocators",
)
"""Entries that say how a graph is run: an optimised graph serves them as well."""

GRAPH_ENTRIES = (
    "mlas.disable_kleidiai",
    "mlas.enable_gemm_fastmath_arm64_bfloat16",
    "mlas.nchwc_depthwise_sliding",
    "mlas.qnbit.force_fp32",
    "mlas.use_lut_gemm",
    "optimization.constant_folding_max_output_size_in_bytes",
    "optimization.disable_specified_optimizers",
    "optimization.enable_cast_chain_elimination",
    "optimization.enable_gelu_approximation",
    "optimization.minimal_build_optimizations",
    "session.allow_released_opsets_only",
    "session.debug_layout_transformation",
    "session.disable_aot_function_inlining",
    "session.disable_double_qdq_remover",
    "session.disable_model_compile",
    "session.disable_qdq_constant_folding",
    "session.disable_quant_qdq",
    "session.enable_dq_matmulnbits_fusion",
    "session.enable_quant_qdq_cleanup",
    "session.graph_optimizations_loop_level",
    "session.kernel_dispatch_policy",
    "session.max_shape_override",
    "session.node_partition_config_file",
    "session.qdq_matmulnbits_accuracy_level",
    "session.qdq_matmulnbits_block_size",
    "session.qdqisint8allowed",
    "session.set_denormal_as_zero",
    "session.strict_shape_type_inference",
    "session.x64quantprecision",
    "session.optimized_model_external_initializers_file_name",
    "session.optimized_model_external_initializers_min_size_in_bytes",
    "session.save_external_prepacked_constant_initializers",
    "session.save_model_format",
)
"""Entries that change what the optimiser makes of a graph, so that the default's result is not what was asked for."""

OptionsLike = Any
"""A SessionOptions, a function that returns a fresh one, or None."""


def entry(options: ort.SessionOptions, name: str) -> str | None:
    """A configuration entry, or None where it is not set."""
    try:
        value: str = options.get_session_config_entry(name)
    except RuntimeError:  # its way of saying "no such key"
        return None
    return value


def is_default(options: OptionsLike) -> bool:
    """Whether the optimiser would do with these options what it does without any."""
    if options is None:
        return True
    if callable(options):
        return False
    _check(options)
    plain: bool = (
        options.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        and not options.optimized_model_filepath
        and all(entry(options, name) is None for name in GRAPH_ENTRIES)
    )
    return plain


def _check(options: object) -> None:
    if not isinstance(options, ort.SessionOptions):
        raise UsageError("bad sess_options", f"it is a {type(options).__name__}", "pass an onnxruntime.SessionOptions")


def fresh(options: OptionsLike) -> ort.SessionOptions:
    """A SessionOptions object that is ours to change."""
    if options is None:
        return ort.SessionOptions()
    if callable(options):
        made = options()
        if not isinstance(made, ort.SessionOptions):
            raise UsageError("bad sess_options", "the function returned no SessionOptions", "return a fresh one")
        return made
    _check(options)
    copy = ort.SessionOptions()
    for name, member in vars(ort.SessionOptions).items():
        if isinstance(member, property) and getattr(options, name) != getattr(copy, name):
            setattr(copy, name, getattr(options, name))
    for name in RUNTIME_ENTRIES + GRAPH_ENTRIES:
        value = entry(options, name)
        if value is not None:
            copy.add_session_config_entry(name, value)
    return copy


def over(base: np.ndarray[Any, Any], options: ort.SessionOptions, optimised: bool, prepack: bool) -> ort.SessionOptions:
    """`options`, made to use the region `base` in place. optimised: the graph has been, leave it alone.

    ONNX Runtime takes no reference to the buffer: whoever makes the session keeps it (see `session`).
    """
    if len(base):
        options.add_external_initializers_from_files_in_memory([LOCATION], [base.data], [len(base)])
        options.add_session_config_entry(_DIRECT, "1")
    if optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not prepack:
        options.add_session_config_entry(DISABLE_PREPACKING, "1")
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
