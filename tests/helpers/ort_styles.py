"""A program that knows nothing of trims and makes ONNX Runtime sessions in every way there is: what does each one give?

Run as `python ort_styles.py DIRECTORY`, where cnn.onnx, external/cnn.onnx, branches.onnx, unknown.onnx, x.npy and a
link to the first are. Prints one JSON object: the way to its outcome, which is the same for a program that is
redirected, but for "shared".
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime import InferenceSession  # bound before any session is made

PATH = "cnn.onnx"
X: Any = None
WAYS: dict[str, Callable[[], Any]] = {}
NATIVE = {
    "custom operators", "dimensions", "an entry that is not known", "its own initializer", "optimised model saved",
    "changed", "ORT format", "no file", "no model", "bytes that are no model", "no path", "no options", "no provider",
    "options of a session", "options from the model",
}  # fmt: skip
"""Those that are made natively under trims as well."""


SHARED: list[bool] = []
"""Whether the sessions that a way made are trims' own doing."""


def way(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def add(function: Callable[[], Any]) -> Callable[[], Any]:
        WAYS[name] = function
        return function

    return add


def digest(arrays: Any) -> str:
    return hashlib.sha256(b"".join(np.asarray(array).tobytes() for array in arrays)).hexdigest()


def facts(session: Any) -> dict[str, Any]:
    """All that a program can ask a session, and what it computes."""

    def arguments(found: Any) -> list[Any]:
        return [(a.name, a.type, [str(n) for n in a.shape]) for a in found]

    SHARED.append(hasattr(session, "_trims_model"))
    meta, own = session.get_modelmeta(), session.get_session_options()
    inputs = {"x": X} if len(session.get_inputs()) == 1 else {"x": X[0, 0, :2].reshape(1, 32), "c": np.array(True)}
    return {
        "outputs": [digest(session.run(None, inputs)), digest(session.run(None, inputs))],
        "meta": [meta.producer_name, meta.graph_name, meta.domain, meta.description, meta.graph_description],
        "more meta": [meta.version, meta.custom_metadata_map],
        "arguments": [arguments(session.get_inputs()), arguments(session.get_outputs())],
        "overridable": arguments(session.get_overridable_initializers()),
        "providers": [session.get_providers(), session.get_provider_options()],
        "options": {n: str(getattr(own, n)) for n, v in vars(ort.SessionOptions).items() if isinstance(v, property)},
        "direct": own.has_providers(),
        "path": str(session._model_path),
        "bytes": session._model_bytes is not None and len(session._model_bytes),
        "type": type(session).__name__,
    }


def options(**attributes: Any) -> Any:
    made = ort.SessionOptions()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def entry(name: str, value: str) -> Any:
    made = options()
    made.add_session_config_entry(name, value)
    return made


class Mine(ort.InferenceSession):
    """A program's own class, with arguments of its own."""

    def __init__(self, where: str, scale: float = 2.0) -> None:
        super().__init__(where, sess_options=options(intra_op_num_threads=1))
        self.scale = scale

    def run(self, names: Any, inputs: Any, run_options: Any = None) -> list[Any]:
        return [output * self.scale for output in super().run(names, inputs, run_options)]


way("positional")(lambda: facts(ort.InferenceSession(PATH)))
way("a name bound before")(lambda: facts(InferenceSession(PATH)))
way("keywords")(lambda: facts(ort.InferenceSession(path_or_bytes=PATH, sess_options=None, providers=None)))
way("all positional")(lambda: facts(ort.InferenceSession(PATH, options(), ["CPUExecutionProvider"], None)))
way("PathLike")(lambda: facts(ort.InferenceSession(Path(PATH).absolute())))
way("bytes")(lambda: facts(ort.InferenceSession(Path(PATH).read_bytes(), providers=["CPUExecutionProvider"])))
way("external data")(lambda: facts(ort.InferenceSession("external/cnn.onnx")))
way("branches")(lambda: facts(ort.InferenceSession("branches.onnx")))
way("a link")(lambda: facts(ort.InferenceSession("link.onnx")))
way("subclass")(lambda: facts(Mine(PATH)))
way("one thread")(lambda: facts(ort.InferenceSession(PATH, options(intra_op_num_threads=1, logid="mine"))))
way("provider with options")(lambda: facts(ort.InferenceSession(PATH, providers=[("CPUExecutionProvider", {})])))
way("provider options")(
    lambda: facts(ort.InferenceSession(PATH, providers=["CPUExecutionProvider"], provider_options=[{}]))
)
way("no providers")(lambda: facts(ort.InferenceSession(PATH, providers=[])))
way("not packed")(lambda: facts(ort.InferenceSession(PATH, entry("session.disable_prepacking", "1"))))
way("spinning")(lambda: facts(ort.InferenceSession(PATH, entry("session.intra_op.allow_spinning", "0"))))
way("denormals")(lambda: facts(ort.InferenceSession(PATH, entry("session.set_denormal_as_zero", "1"))))
way("other optimisers")(lambda: facts(ort.InferenceSession(PATH, disabled_optimizers=["MatMulAddFusion"])))
way("custom operators")(lambda: ort.InferenceSession(PATH, with_library()))
way("an entry that is not known")(lambda: facts(ort.InferenceSession(PATH, entry("session.mine", "1"))))
way("options from the model")(lambda: facts(ort.InferenceSession(PATH, read_config_from_model=1)))
way("no file")(lambda: ort.InferenceSession("none.onnx"))
way("no model")(lambda: ort.InferenceSession("x.npy"))
way("bytes that are no model")(lambda: ort.InferenceSession(b"\0" * os.path.getsize(PATH)))
way("no path")(lambda: ort.InferenceSession(5))  # type: ignore[arg-type]
way("no options")(lambda: ort.InferenceSession(PATH, sess_options=5))  # type: ignore[arg-type]
way("no provider")(lambda: ort.InferenceSession(PATH, providers=[5]))  # type: ignore[list-item]
way("a provider that is not here")(lambda: facts(ort.InferenceSession(PATH, providers=["CUDAExecutionProvider"])))
way("a provider that may be here")(
    lambda: facts(ort.InferenceSession(PATH, providers=[("CUDAExecutionProvider", {}), "CPUExecutionProvider"]))
)
for level in ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED"):
    chosen = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
    way(level)(lambda chosen=chosen: facts(ort.InferenceSession(PATH, options(graph_optimization_level=chosen))))


def with_library() -> Any:
    made = options()
    made.register_custom_ops_library("/nonexistent.so")
    return made


@way("dimensions")
def dimensions() -> Any:
    made = options()
    made.add_free_dimension_override_by_name("batch", 1)
    return facts(ort.InferenceSession(PATH, made))


@way("its own initializer")
def own_initializer() -> Any:
    made, value = options(), ort.OrtValue.ortvalue_from_numpy(np.zeros(10, np.float32))
    made.add_initializer("head.bias", value)
    return facts(ort.InferenceSession(PATH, made))


@way("optimised model saved")
def saved() -> Any:
    found = facts(ort.InferenceSession(PATH, options(optimized_model_filepath="saved.onnx", log_severity_level=3)))
    return found, digest([np.fromfile("saved.onnx", np.uint8)])


@way("ORT format")
def ort_format() -> Any:
    ort.InferenceSession(PATH, options(optimized_model_filepath="cnn.ort", log_severity_level=3))
    return facts(ort.InferenceSession("cnn.ort"))


@way("options used twice")
def twice() -> Any:
    mine = options(intra_op_num_threads=1)
    return facts(ort.InferenceSession(PATH, mine)), facts(ort.InferenceSession("external/cnn.onnx", mine))


@way("options of a session")
def options_of_a_session() -> Any:
    first = ort.InferenceSession("unknown.onnx")
    return facts(ort.InferenceSession("unknown.onnx", first.get_session_options()))


@way("options of a shared session")
def options_of_a_shared_session() -> Any:
    mine = ort.InferenceSession(PATH, options(intra_op_num_threads=1)).get_session_options()
    return facts(ort.InferenceSession("external/cnn.onnx", mine))


@way("providers set anew")
def providers() -> Any:
    session = ort.InferenceSession(PATH)
    before = facts(session)
    session.set_providers(["CPUExecutionProvider"])
    return before, facts(session)


@way("binding")
def binding() -> Any:
    session = ort.InferenceSession(PATH)
    bound = session.io_binding()
    bound.bind_cpu_input("x", X)
    bound.bind_output("y")
    session.run_with_iobinding(bound)
    del session
    return digest(bound.copy_outputs_to_cpu())


@way("fork")
def fork() -> Any:
    session = ort.InferenceSession(PATH, options(intra_op_num_threads=1))
    pid = os.fork()
    if pid == 0:
        again = ort.InferenceSession(PATH, options(intra_op_num_threads=1))
        os._exit(int(digest(session.run(None, {"x": X})) != digest(again.run(None, {"x": X}))))
    return os.waitpid(pid, 0)[1], facts(session)


@way("changed")
def changed() -> Any:
    """The last one: the file is another model afterwards, of the same size."""
    data = bytearray(Path(PATH).read_bytes())
    data[-400] ^= 1
    Path("changed.onnx").write_bytes(data)
    return ort.InferenceSession("changed.onnx").get_modelmeta().graph_name


def outcome(function: Callable[[], Any]) -> Any:
    SHARED.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = function()
        except Exception as error:
            found = [type(error).__name__, str(error)]
    found = found if isinstance(found, (dict, list, tuple, str)) else type(found).__name__
    return {"found": found, "warned": [str(warning.message) for warning in caught], "shared": [*SHARED]}


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    X = np.load("x.npy")
    outcomes = {}
    for name, function in WAYS.items():
        print(f"-- {name}", file=sys.stderr, flush=True)
        outcomes[name] = outcome(function)
    print(json.dumps(outcomes))
