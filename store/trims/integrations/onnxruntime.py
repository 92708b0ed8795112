"""ONNX Runtime sessions over shared weights.

Left to itself ONNX Runtime optimises a graph while loading and keeps private copies of what it rewrote, whoever owned
the original. So a session is made, in this order of preference, from

1. a *variant*: the graph as the default level optimises it and the weights that go with it, derived once and kept in
   the store, loaded with optimisation off - bit-identical to a native session, and nothing left to copy;
2. the original graph over the shared original weights, when the caller wants other options than the default or no
   variant can be had: the same results, private copies of what the optimiser rewrites;
3. the whole model from private memory, when this ONNX Runtime cannot use a caller's memory.

Everything but the first says so in a warning, unless the caller's options asked for it.

ONNX Runtime takes no reference to the memory that it is given. The region is kept by a finalizer of the C session,
which runs after its destructor; I/O bindings hold the C session, so they are covered.
"""

from __future__ import annotations

import atexit  # noqa: F401 - or the first session would: its finalizer needs it
import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from trims.client.attachment import RAW
from trims.errors import NoSuchModel, NoSuchVariant, UsageError
from trims.integrations import ort_options
from trims.integrations.ort_builder import build_in_child
from trims.integrations.ort_key import variant_key

if TYPE_CHECKING:
    from trims.client.handle import Model
    from trims.client.mapping import Region

__all__ = ["NotSharedWarning", "session", "variant_key"]

_CPU = {"CPUExecutionProvider", "AzureExecutionProvider"}  # the second runs remote operators only
_GRAPH_ARGUMENTS = {"disabled_optimizers"}
_NOT_DERIVED: tuple[type[Exception], ...] = (NoSuchVariant, *ort_options.ERRORS)


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
    """
    if share not in ("exact", "max"):
        raise UsageError(f"bad share {share!r}", "", "use exact or max")
    start = _Start(model, share == "exact", ort_options.Wanted(sess_options), providers, options)
    if not ort_options.can_share():
        return start.native(f"onnxruntime {ort.__version__} copies what it is given; 1.31 is the first that does not")
    why = ""
    if not start.on_cpu:
        why = f"weights are shared on the CPU only, not with {providers}"
    elif start.is_default:
        try:
            return start.variant()
        except _NOT_DERIVED as error:
            why = f"the derived form cannot be used: {error}"
    try:
        made = start.raw()
    except ort_options.ERRORS as error:
        return start.native(f"the shared weights were refused: {error}")
    if why:
        start.warn(f"its session optimises the shared weights into private memory: {why}")
    return made


class _Start:
    """One session to make: the ways to make it, all with the caller's options."""

    def __init__(
        self,
        model: Model,
        prepack: bool,
        wanted: ort_options.Wanted,
        providers: list[Any] | None,
        more: dict[str, Any],
    ) -> None:
        self._model, self._prepack, self._wanted, self._providers, self._more = model, prepack, wanted, providers, more
        names = {p[0] if isinstance(p, tuple) else p for p in providers or ()}
        self.on_cpu = names <= _CPU and (bool(names) or set(ort.get_available_providers()) <= _CPU)
        self.is_default = wanted.is_default and not any(more.get(name) for name in _GRAPH_ARGUMENTS)

    def variant(self) -> ort.InferenceSession:
        """From the derived form, built when the store has none. Raises NoSuchVariant, ONNX Runtime's errors."""
        key = variant_key()
        try:
            region = self._model.region(key)
        except (NoSuchVariant, NoSuchModel):
            self._check_graph()
            build_in_child(self._model.backend.store, self._model.digest)
            region = self._model.region(key)
        return self._over(region, optimised=True)

    def raw(self) -> ort.InferenceSession:
        """From the original graph over the shared original weights."""
        self._check_graph()
        return self._over(self._model.region(RAW), optimised=False)

    def native(self, why: str) -> ort.InferenceSession:
        """From one piece in private memory, as if there were no trims."""
        from trims.integrations.ort_graph import complete

        self._check_graph()
        self.warn(f"its session has weights of its own: {why}")
        region = self._model.region(RAW)
        whole = complete(_graph(region), lambda offset, nbytes: region.blob((offset, nbytes)))
        options = self._wanted.given
        if callable(options) or not self._prepack:
            options = self._wanted.fresh()
        if not self._prepack:
            options.add_session_config_entry(ort_options.DISABLE_PREPACKING, "1")
        return ort.InferenceSession(whole, options, self._providers, **self._more)

    def warn(self, text: str) -> None:
        warnings.warn(f"{self._model.ref}: {text}", NotSharedWarning, stacklevel=_stack_level())

    def _over(self, region: Region, optimised: bool) -> ort.InferenceSession:
        options = ort_options.over(region.base, self._wanted.fresh(), optimised, self._prepack)
        # Without this a refusal is printed on standard output and the same thing is tried a second time.
        more = {"enable_fallback": 0, **self._more}
        made = ort.InferenceSession(_graph(region), options, self._providers, **more)
        _keep(made, region.base)
        return made

    def _check_graph(self) -> None:
        if self._model.region(RAW).contents.graph is None:
            raise UsageError(
                f"model {self._model.ref} has no graph",
                "only models imported from ONNX can be run by ONNX Runtime",
                "use its tensors, or import the .onnx file",
            )


def _graph(region: Region) -> bytes:
    if region.contents.graph is None:
        raise NoSuchVariant("the derived form has no graph", "it is no ONNX Runtime variant", "see `trims show`")
    return region.blob(region.contents.graph)


def _keep(made: ort.InferenceSession, base: np.ndarray[Any, Any]) -> None:
    """Keep the region as long as the C session, and as long as the object that may make another from these options.

    (`set_providers` replaces the C session by a new one over the same memory.)
    """
    finalizer = weakref.finalize(made._sess, _nothing, base)
    finalizer.atexit = False
    made._trims_region = base


def _nothing(base: np.ndarray[Any, Any]) -> None:
    """What a finalizer calls that only has to hold its argument until then."""


def _stack_level() -> int:
    """The level, for `warnings.warn` two calls up, of the first caller outside of trims."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("trims."):
        frame, level = frame.f_back, level + 1
    return level
