"""Made-up inputs for any ONNX Runtime session, and its outputs as comparable bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime as ort

from trims.integrations.ort_options import ERRORS

_TYPES = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "bool": np.bool_,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64,
}  # fmt: skip
_LARGEST = 1 << 26  # items; an input larger than that is not made up


class CannotMakeUp(Exception):
    """An input is no plain tensor of numbers, or is too large."""


FAILURES: tuple[type[Exception], ...] = (CannotMakeUp, *ERRORS)
"""What making up inputs and running with them may raise."""


SYMBOLIC = (1, 16, 512)
"""Sizes to try for symbolic dimensions, in this order: padding and windows need more than one item."""


def made_up(session: ort.InferenceSession, symbolic: int = 1) -> dict[str, np.ndarray[Any, Any]]:
    """An array for every input: fixed dimensions as they are, symbolic ones `symbolic`, but 1 for what comes first.

    A dimension that is somewhere the first one is a batch, wherever else its name turns up.

    Floats are normal; integers are 0 or 1, which is valid as an index, a mask and a token. The same arrays for the
    same session. Raises CannotMakeUp.
    """
    random = np.random.default_rng(0)
    batches = {argument.shape[0] for argument in session.get_inputs() if argument.shape} - {None}
    made: dict[str, np.ndarray[Any, Any]] = {}
    for argument in session.get_inputs():
        dtype = _TYPES.get(argument.type.removeprefix("tensor(").removesuffix(")"))
        shape = [
            n if isinstance(n, int) and n > 0 else 1 if i == 0 or n in batches else symbolic
            for i, n in enumerate(argument.shape or ())
        ]
        if dtype is None or math.prod(shape) > _LARGEST:
            raise CannotMakeUp(argument.name)
        if np.issubdtype(dtype, np.floating):
            made[argument.name] = random.standard_normal(shape).astype(dtype)
        else:
            made[argument.name] = random.integers(0, 2, shape).astype(dtype)
    return made


def first_run(session: ort.InferenceSession) -> tuple[dict[str, np.ndarray[Any, Any]], list[tuple[str, str, bytes]]]:
    """Made-up inputs that the session takes, and its outputs for them. Raises one of FAILURES when it takes none."""
    for symbolic in SYMBOLIC:
        inputs = made_up(session, symbolic)
        try:
            return inputs, outputs(session, inputs)
        except ERRORS:
            if symbolic == SYMBOLIC[-1]:
                raise
    raise CannotMakeUp("no sizes to try")


def outputs(session: ort.InferenceSession, inputs: dict[str, np.ndarray[Any, Any]]) -> list[tuple[str, str, bytes]]:
    """What the session computes, so that equal means the same bits: (type, shape, bytes) of every output."""
    return [_bytes(value) for value in session.run(None, inputs)]


def _bytes(value: Any) -> tuple[str, str, bytes]:
    if isinstance(value, np.ndarray) and value.dtype != object:
        return str(value.dtype), str(value.shape), value.tobytes()
    return type(value).__name__, "", repr(value).encode()  # strings, sequences and maps
