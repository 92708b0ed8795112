"""A request that runs one inference in ONNX Runtime: `InferenceSession(path)` against `model.onnxruntime()`.

Inputs are made from a seed and the shapes that the graph names, the same in every process; a dimension without a number
is 1. Integer inputs are zeros and ones, which any vocabulary, mask or index allows. The checksum is of the outputs'
bytes: trims' "exact" sessions give the very bits of native ones.
"""

from __future__ import annotations

import hashlib
import warnings
from typing import Any

import numpy as np

from trims.errors import UsageError
from trims.workload.functions import Job, Result

_TYPES = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(int16)": np.int16, "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}  # fmt: skip


def prepare(threads: int, side: str) -> None:
    """Import what the side's program imports before it loads anything."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    if side == "trims":
        import trims.client.handle
        import trims.client.session
        import trims.integrations.onnxruntime
        import trims.integrations.ort_key  # noqa: F401


def native(job: Job) -> Result:
    import onnxruntime

    return _result(onnxruntime.InferenceSession(job.file, _options(job), providers=["CPUExecutionProvider"]))


def shared(job: Job) -> tuple[str, Result]:
    """As `native`. Raises NotSharedWarning where the session would have weights of its own: that is no shared one."""
    import trims
    from trims.integrations.onnxruntime import NotSharedWarning

    model = trims.open(job.ref, place=job.place, timeout=job.timeout)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotSharedWarning)
        session = model.onnxruntime(share=job.share, sess_options=_options(job))
    return model.how, _result(session, model)


def _options(job: Job) -> Any:
    import onnxruntime

    made = onnxruntime.SessionOptions()
    made.intra_op_num_threads = job.threads
    made.log_severity_level = 3
    return made


def _result(session: Any, *held: object) -> Result:
    def run(held: object = held) -> int:
        digest = hashlib.blake2b(digest_size=8)
        for output in session.run(None, feeds(session)):
            digest.update(np.ascontiguousarray(output).tobytes())
        return int.from_bytes(digest.digest(), "little")

    return run


def feeds(session: Any, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of `session` by name, from a seed. Raises UsageError for an input that is no plain tensor."""
    rng = np.random.Generator(np.random.PCG64(seed))
    made = {}
    for argument in session.get_inputs():
        if argument.type not in _TYPES:
            raise UsageError(
                f"input {argument.name!r} is a {argument.type}", "the function onnxruntime makes plain tensors only"
            )
        dtype = np.dtype(_TYPES[argument.type])
        shape = [n if isinstance(n, int) and n > 0 else 1 for n in argument.shape]
        values = rng.random(shape)
        made[argument.name] = (values * 2 if dtype.kind in "iub" else values).astype(dtype)
    return made
