"""ONNX Runtime sessions of known files: made over the shared weights, whoever constructs them and however.

`InferenceSession._create_inference_session` is what constructor and `set_providers` come to, after the arguments have
been taken apart: there a session has a path or bytes, and options. For a known file it gets the graph and the options
of trims for the length of that call, and its own back, so that the program finds what it gave. The results are the
same bits; what cannot be had so (another device, custom operators, options that are not known here) is native.
"""

from __future__ import annotations

import functools
import os

from trims.redirect import deciding, ort_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from trims.integrations.ort_options import Wanted

_FRAMEWORK = "onnxruntime"


def patch(module: Any) -> None:
    """Put the hook into onnxruntime.capi.onnxruntime_inference_collection."""
    kind = module.InferenceSession
    original = kind._create_inference_session
    ort_records.watch(module.C.SessionOptions)

    @functools.wraps(original)
    def _create_inference_session(
        self: Any, providers: Any, provider_options: Any, disabled_optimizers: Any = None
    ) -> None:
        arguments = (providers, provider_options, disabled_optimizers)

        def native() -> None:
            record = ort_records.record_of(self._sess_options) if self._sess_options else ort_records.Record()
            original(self, *arguments)
            ort_records.same(self._sess_options, record)
            vars(self).pop("_trims_model", None)  # of the session before, when its providers are set anew

        deciding.load(_source(self), _FRAMEWORK, lambda decision: _share(decision, self, original, arguments), native)

    kind._create_inference_session = _create_inference_session


def _source(session: Any) -> Any:
    """The path or the bytes that a program gave; None for a graph that trims itself has taken out of a region.

    None for no file, too: that is an error of the program's, which may be waiting for it.
    """
    if session._model_path:
        return session._model_path if os.path.lexists(session._model_path) else None
    return session._model_bytes if type(session._model_bytes) is bytes else None


def _share(decision: deciding.Decision, session: Any, original: Any, arguments: tuple[Any, Any, Any]) -> None:
    """Make the C session of `session` over the shared weights. Raises Unsuited, and what ONNX Runtime raises."""
    from trims.integrations import ort_options, ort_start

    providers, _, disabled_optimizers = arguments
    if decision.known.kind != "onnx":
        raise deciding.Unsuited("it is no ONNX model")
    if not ort_options.can_share():
        raise deciding.Unsuited("this onnxruntime copies what it is given; 1.31 is the first that does not")
    if session._read_config_from_model:
        raise deciding.Unsuited("its session options come out of the model")
    if not (isinstance(providers, (list, tuple, type(None))) and ort_start.on_cpu(providers)):
        raise deciding.Unsuited("weights are shared on the CPU only")
    wanted = _wanted(session._sess_options)

    def make(graph: bytes, options: Any) -> Any:
        own = session._model_path, session._model_bytes, session._sess_options
        session._model_path, session._model_bytes, session._sess_options = None, graph, options
        try:
            original(session, *arguments)
        except BaseException:
            session._sess_options = own[2]
            raise
        finally:
            session._model_path, session._model_bytes = own[:2]
        return session

    model = decision.model()
    made = ort_start.Start(model, wanted, providers, disabled_optimizers, make).shared()
    session._trims_model = model  # who holds a session uses its model: the next one shares it, the report counts it
    decision.nbytes = len(made.base)
    if made.why:
        _say(decision, made.why)


def _say(decision: deciding.Decision, why: str) -> None:
    from trims.redirect import report
    from trims.redirect.environment import wishes

    name = deciding.name_of(decision.source)
    line = f"trims: {name}: its session optimises the shared weights into private memory: {why}"
    report.say(line, name, wishes().quiet)


def _wanted(options: Any) -> Wanted:
    """The program's session options, to be copied. Raises Unsuited for those that cannot be."""
    import onnxruntime as ort

    from trims.integrations import ort_options

    if not options:
        return ort_options.Wanted(None)
    record = ort_records.record_of(options) if isinstance(options, ort.SessionOptions) else None
    if record is None:
        raise deciding.Unsuited("nobody knows what its session options are")
    unknown = record.entries.keys() - {*ort_options.RUNTIME_ENTRIES, *ort_options.GRAPH_ENTRIES}
    if record.opaque or unknown:
        what = record.opaque or min(unknown)
        raise deciding.Unsuited(f"its session options have something that cannot be copied ({what})")
    if options.optimized_model_filepath:
        raise deciding.Unsuited("it saves the optimised model")
    return ort_options.Wanted(options, record.entries)
