"""Starting one ONNX Runtime session over shared weights: which form of the model, with which options.

What makes the session is the caller's: a constructor call, or the hook that is inside one already. Whatever way it is
made, ONNX Runtime takes no reference to the memory that it is given. The region is kept by a finalizer of the C
session, which runs after its destructor; I/O bindings hold the C session, so they are covered.
"""

from __future__ import annotations

import atexit  # noqa: F401 - or the first session would: its finalizer needs it
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import onnxruntime as ort

from trims.client.attachment import RAW, AnyRegion, in_host_memory
from trims.errors import NoSuchModel, NoSuchVariant, UsageError
from trims.integrations import ort_options
from trims.integrations.ort_key import variant_key

if TYPE_CHECKING:
    import numpy as np

    from trims.client.handle import Model
    from trims.client.mapping import Region

VARIANT = "variant"
"""The form that ONNX Runtime's default level makes; the other one is RAW."""

_CPU = {"CPUExecutionProvider", "AzureExecutionProvider"}  # the second runs remote operators only
_NOT_DERIVED: tuple[type[Exception], ...] = (NoSuchVariant, *ort_options.ERRORS)

Make = Callable[[bytes, ort.SessionOptions], ort.InferenceSession]
"""Makes the session of a graph with these options. May be called again, with another form, after it has raised."""


class Skeleton(bytes):
    """A graph without its weights, out of a region. By its type nobody takes it for a file that a program has read."""


class Made(NamedTuple):
    """A session. form: VARIANT or RAW. base: the bytes it uses. why: what stood in the way of the derived form."""

    session: ort.InferenceSession
    form: str
    base: np.ndarray[Any, Any]
    why: str = ""


class Start:
    """One session to make: the ways to make it, all with the caller's options."""

    def __init__(
        self,
        model: Model,
        wanted: ort_options.Wanted,
        providers: Sequence[Any] | None,
        disabled_optimizers: object,
        make: Make,
        prepack: bool = True,
    ) -> None:
        self._model, self._wanted, self._make, self._prepack = model, wanted, make, prepack
        self._providers = providers
        self._is_default = wanted.is_default and not disabled_optimizers

    def shared(self) -> Made:
        """The session over the form that shares most. Raises UsageError, ort_options.ERRORS."""
        why = ""
        if not on_cpu(self._providers):
            why = f"weights are shared on the CPU only, not with {self._providers}"
        elif self._is_default:
            try:
                return self._over(self._derived(), VARIANT)
            except _NOT_DERIVED as error:
                why = f"the derived form cannot be used: {error}"
        check_graph(self._model)
        return self._over(in_host_memory(self._model.region(RAW)), RAW, why)

    def _derived(self) -> Region:
        """The derived form, built when the store has none. Raises NoSuchVariant."""
        key = variant_key()
        try:
            return in_host_memory(self._model.region(key))
        except (NoSuchVariant, NoSuchModel):
            from trims.integrations.ort_builder import build_in_child  # nobody needs it once the store has the form

            check_graph(self._model)
            build_in_child(self._model.backend.store, self._model.digest)
            return in_host_memory(self._model.region(key))

    def _over(self, region: Region, form: str, why: str = "") -> Made:
        options = ort_options.over(region.base, self._wanted.fresh(), form == VARIANT, self._prepack)
        made = self._make(graph_of(region), options)
        keep(made, region.base)
        self._show_own_options(made)
        return Made(made, form, region.base, why)

    def _show_own_options(self, made: ort.InferenceSession) -> None:
        """What `get_session_options` gives are the caller's: ours name memory that another session may not use."""
        if not callable(self._wanted.given):
            made._sess_options = self._wanted.fresh()
            if not self._prepack:
                made._sess_options.add_session_config_entry(ort_options.DISABLE_PREPACKING, "1")


def on_cpu(providers: Sequence[Any] | None) -> bool:
    """Whether these providers, as InferenceSession takes them, compute on the CPU alone.

    Many programs name a GPU's first, wherever they run: where there is none, ONNX Runtime takes the next.
    """
    here = {*ort.get_available_providers(), *(device.ep_name for device in ort.get_ep_devices())}  # and plugins
    names = {p[0] if isinstance(p, tuple) else p for p in providers or here}
    return names & here <= _CPU


def check_graph(model: Model) -> None:
    """Raise UsageError when a model has nothing to run."""
    if model.region(RAW).contents.graph is None:
        raise UsageError(
            f"model {model.ref} has no graph",
            "only models imported from ONNX can be run by ONNX Runtime",
            "use its tensors, or import the .onnx file",
        )


def graph_of(region: AnyRegion) -> Skeleton:
    """The graph that lies in a region. Raises NoSuchVariant."""
    if region.contents.graph is None:
        raise NoSuchVariant("the derived form has no graph", "it is no ONNX Runtime variant", "see `trims show`")
    offset, nbytes = region.contents.graph
    if region.on_gpu:
        return Skeleton(region.blob((offset, nbytes)))
    return Skeleton(region.base[offset : offset + nbytes].data)


def keep(made: ort.InferenceSession, memory: object) -> None:
    """Keep memory as long as the C session."""
    finalizer = weakref.finalize(made._sess, _nothing, memory)
    finalizer.atexit = False


def _nothing(memory: object) -> None:
    """What a finalizer calls that only has to hold its argument until then."""
