"""Exceptions inside code of ours: whose they are, what is said of them, and that nothing is kept alive by them."""

from __future__ import annotations

import sys

from trims.errors import TrimsError

_OURS = frozenset((
    "trims", "msgspec", "xxhash", "blake3", "ml_dtypes", "filelock", "zstandard", "h5py", "onnx", "google",
    "numpy", "onnxruntime", "safetensors", "torch", "transformers", "jax", "_trims_finder",
))  # fmt: skip
"""Packages whose exceptions are no program's own."""


def is_users(error: BaseException) -> bool:
    """Whether an exception comes out of the program's own code, which ran inside ours: it is not ours to swallow."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    root = str(last.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    return root not in _OURS and root not in sys.stdlib_module_names


def describe(error: BaseException) -> str:
    """An exception as the reason in a line."""
    return str(error) if isinstance(error, TrimsError) else f"{type(error).__name__}: {str(error)[:300]}"


def forget(error: BaseException | None) -> None:
    """Let go of the frames of an exception that was dealt with: they lead to all that the program had on its stack.

    To be called after the block that handled it: an exception that the program itself is handling now is the program's.
    """
    theirs = sys.exc_info()[1]
    seen: set[int] = set()
    while error is not None and error is not theirs and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
