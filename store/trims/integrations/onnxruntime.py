"""ONNX Runtime sessions over shared weights.

Left to itself ONNX Runtime optimises a graph while loading and keeps private copies of what it rewrote, whoever owned
the original. So a session is made, in this order of preference, from

1. a *variant*: the graph as the default level optimises it and the weights that go with it, derived once and kept in
   the store, loaded with optimisation off - bit-identical to a native session, and nothing left to copy;
2. the original graph over the shared original weights, when the caller wants other options than the default or no
   variant can be had: the same results, private copies of what the optimiser rewrites;
3. the whole model from private memory, when this ONNX Runtime cannot use a caller's memory.

Everything but the first says so in a warning, unless the caller's options asked for it.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from trims.client.attachment import RAW
from trims.errors import UsageError
from trims.integrations import ort_options
from trims.integrations.ort_key import variant_key
from trims.integrations.ort_start import Start, check_graph
from trims.places import is_gpu

if TYPE_CHECKING:
    from trims.client.handle import Model

__all__ = ["NotSharedWarning", "session", "variant_key"]


class NotSharedWarning(UserWarning):
    """A session has private copies of weights that were meant to be shared; the message says why."""


def session(
    model: Model,
    share: str = "exact",
    sess_options: ort_options.OptionsLike = None,
    providers: list[Any] | None = None,
    **options: Any,
) -> ort.InferenceSession:
    """An InferenceSession of `model`.

    share: "exact" gives the bits of a native session; ONNX Runtime still packs some weights (of matrix products) into
        private memory. "max" turns that off: everything is shared, results differ in the last bits, and matrix
        products may run slower.
    sess_options: a SessionOptions, which is copied, or a function that returns a fresh one (for what Python cannot
        copy: custom operators, free-dimension overrides). With another optimisation level than the default the
        original graph is used.
    providers, options: as InferenceSession takes them.

    Of a model on a GPU the session uses the weights there, with CUDAExecutionProvider on that GPU (the default then).
    Its graph is not optimised, so it may be slower than a native one, and differ in the last bits: see
    `trims.integrations.ort_device`. Where that cannot be, it has weights of its own, and a warning says why.
    """
    if share not in ("exact", "max"):
        raise UsageError(f"bad share {share!r}", "", "use exact or max")
    prepack, wanted = share == "exact", ort_options.Wanted(sess_options)

    def make(graph: bytes, given: ort.SessionOptions) -> ort.InferenceSession:
        # Without this a refusal is printed on standard output and the same thing is tried a second time.
        return ort.InferenceSession(graph, given, providers, **{"enable_fallback": 0, **options})

    def native(why: str) -> ort.InferenceSession:
        _warn(model, f"its session has weights of its own: {why}")
        return _native(model, prepack, wanted, providers, options)

    region = model.region() if is_gpu(model.place) else None
    if region is not None and region.on_gpu:
        from trims.integrations import ort_device  # for those with a GPU: it takes graphs apart

        check_graph(model)
        providers = ort_device.usual(region.mapped.ordinal) if providers is None else providers
        if why := ort_device.obstacle(region.mapped.ordinal, providers, options.get("provider_options")):
            return native(why)
        try:
            return ort_device.session(region, wanted, make)
        except ort_options.ERRORS as error:
            return native(str(error))
    if not ort_options.can_share():
        return native(f"onnxruntime {ort.__version__} copies what it is given; 1.31 is the first that does not")
    start = Start(model, wanted, providers, options.get("disabled_optimizers"), make, prepack)
    try:
        made = start.shared()
    except ort_options.ERRORS as error:
        return native(f"the shared weights were refused: {error}")
    if made.why:
        _warn(model, f"its session optimises the shared weights into private memory: {made.why}")
    made.session._trims_region = made.base  # `set_providers` makes another C session over the same memory
    return made.session


def _native(
    model: Model, prepack: bool, wanted: ort_options.Wanted, providers: list[Any] | None, more: dict[str, Any]
) -> ort.InferenceSession:
    """A session from one piece in private memory, as if there were no trims."""
    from trims.integrations.ort_graph import complete
    from trims.integrations.ort_start import graph_of

    check_graph(model)
    region = model.region(RAW)
    whole = complete(graph_of(region), lambda offset, nbytes: region.blob((offset, nbytes)))
    options = wanted.given
    if callable(options) or not prepack:
        options = wanted.fresh()
    if not prepack:
        options.add_session_config_entry(ort_options.DISABLE_PREPACKING, "1")
    return ort.InferenceSession(whole, options, providers, **more)


def _warn(model: Model, text: str) -> None:
    warnings.warn(f"{model.ref}: {text}", NotSharedWarning, stacklevel=_stack_level())


def _stack_level() -> int:
    """The level, for `warnings.warn` one call up, of the first caller outside of trims."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("trims."):
        frame, level = frame.f_back, level + 1
    return level
